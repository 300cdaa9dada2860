-- database: shop
-- What no foreign key holds together: no order is without its customer.
SELECT count(*) = 0, count(*) || ' orders have no customer, such as ' || coalesce(min(o.id)::text, 'none')
  FROM public.orders AS o
 WHERE NOT EXISTS (SELECT FROM public.customer AS c WHERE c.id = o.customer_id);
