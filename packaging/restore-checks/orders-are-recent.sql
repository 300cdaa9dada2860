-- database: shop
-- Rows may be there and yet be last week's: the newest order is not older than a day.
SELECT coalesce(max(placed_at) > now() - interval '1 day', false),
       'the newest order is of ' || coalesce(max(placed_at)::text, 'no time at all')
  FROM public.orders;
