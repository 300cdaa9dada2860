//! Whether HAProxy leads clients where the roles of the nodes say. Judged purely.
//!
//! Its page of statistics as CSV: `# pxname,svname,…,status,…,addr,…`, one row for each server of each backend.

use jiff::Timestamp;
use url::Url;

use super::SampleError;
use super::round::Nodes;
use super::values::Sampled;
use crate::cluster;
use crate::config;

/// A server of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    backend: String,
    server: String,
    /// The host of its address, where HAProxy shows it.
    host: Option<String>,
    is_up: bool,
}

/// A node whose role is known.
#[derive(Debug, Clone)]
struct Member<'a> {
    names: Vec<&'a str>,
    in_recovery: bool,
}

/// Reads the page at `stats_url`.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read(stats_url: &str) -> Result<String, SampleError> {
    let url = Url::parse(stats_url).ok();
    let host = url.as_ref().and_then(Url::host_str);
    let (Some(url), Some(host)) = (&url, host) else {
        return Err(SampleError::Haproxy(
            "haproxy.stats_url names no host".to_owned(),
        ));
    };
    let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let page = url.path().trim_end_matches(";csv");
    let read = cluster::ask_text(&address, &format!("{page};csv")).await;
    read.map_err(|error| SampleError::Haproxy(error.to_string()))
}

/// 1 for each backend that leads elsewhere than to the nodes of its role.
///
/// # Errors
/// When the page lacks a column, or a backend.
pub(super) fn judge_routes(
    csv: &str,
    settings: &config::Haproxy,
    (hostname, nodes): (&str, &Nodes),
    now: Timestamp,
) -> Result<Vec<Sampled>, SampleError> {
    let routes = parse_routes(csv)?;
    let members = members(hostname, nodes, now);
    let backends = [
        (&settings.primary_backend, false),
        (&settings.replica_backend, true),
    ];
    let judge = |(backend, in_recovery): (&String, bool)| {
        let own: Vec<&Route> = routes.iter().filter(|it| it.backend == *backend).collect();
        if own.is_empty() {
            let reason = format!(
                "HAProxy has no backend {backend}: see haproxy.{}_backend",
                role(in_recovery)
            );
            return Err(SampleError::Haproxy(reason));
        }
        let wrong = wrong_routes(&own, &members, in_recovery);
        Ok(Sampled {
            object: Some(backend.clone()),
            number: Ok(if wrong.is_empty() { 0.0 } else { 1.0 }),
            detail: Some(wrong.join("; ")),
        })
    };
    backends.into_iter().map(judge).collect()
}

fn role(in_recovery: bool) -> &'static str {
    if in_recovery { "replica" } else { "primary" }
}

/// The nodes that answer, with what HAProxy may call each.
fn members<'a>(hostname: &'a str, nodes: &'a Nodes, now: Timestamp) -> Vec<Member<'a>> {
    let own = nodes.sample.map(|sample| Member {
        names: vec![hostname],
        in_recovery: sample.in_recovery,
    });
    let peers = nodes.peers.iter().filter_map(|peer| {
        // One that does not answer may be anything by now.
        let state = peer.live(now).filter(|_| peer.failing.is_none())?;
        let sample = state.view.sample?;
        Some(Member {
            names: vec![peer.name(), peer.host()],
            in_recovery: sample.in_recovery,
        })
    });
    own.into_iter().chain(peers).collect()
}

/// A sentence for each server that is up and of the other role, and for each node of the role that is not up. A server that
/// is no known node is left out.
fn wrong_routes(routes: &[&Route], members: &[Member<'_>], in_recovery: bool) -> Vec<String> {
    let is_of = |route: &Route, member: &Member<'_>| {
        let mut names = member.names.iter();
        names.any(|name| *name == route.server || Some(*name) == route.host.as_deref())
    };
    let mut wrong = Vec::new();
    for route in routes.iter().filter(|route| route.is_up) {
        let member = members.iter().find(|member| is_of(route, member));
        if member.is_some_and(|member| member.in_recovery != in_recovery) {
            let (server, is) = (&route.server, role(!in_recovery));
            wrong.push(format!("{server} is up there and is a {is}"));
        }
    }
    for member in members
        .iter()
        .filter(|member| member.in_recovery == in_recovery)
    {
        let own: Vec<_> = routes.iter().filter(|route| is_of(route, member)).collect();
        if !own.is_empty() && !own.iter().any(|route| route.is_up) {
            let (name, is) = (member.names[0], role(in_recovery));
            wrong.push(format!("{name} is a {is} and is down there"));
        }
    }
    wrong
}

fn parse_routes(csv: &str) -> Result<Vec<Route>, SampleError> {
    let mut lines = csv.lines();
    let header = lines.next().unwrap_or_default().trim_start_matches("# ");
    let names: Vec<&str> = header.split(',').collect();
    let position = |wanted: &str| names.iter().position(|name| *name == wanted);
    let missing =
        || SampleError::Haproxy("haproxy.stats_url is no page of HAProxy's statistics".to_owned());
    let need = |wanted| position(wanted).ok_or_else(missing);
    let (backend, server, status) = (need("pxname")?, need("svname")?, need("status")?);
    let address = position("addr");
    let route = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let host = address.map(cell).and_then(|addr| addr.rsplit_once(':'));
        Route {
            backend: cell(backend).to_owned(),
            server: cell(server).to_owned(),
            host: host.map(|(host, _)| host.to_owned()),
            // "UP", "UP 1/3" while it goes down, or "no check".
            is_up: cell(status).starts_with("UP") || cell(status) == "no check",
        }
    };
    let rows = lines.filter(|line| !line.is_empty()).map(route);
    let totals = ["FRONTEND", "BACKEND"];
    Ok(rows
        .filter(|route| !totals.contains(&route.server.as_str()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{NOW, at, view};
    use crate::cluster::{NodeState, Peer};

    fn nodes(own_in_recovery: bool) -> Nodes {
        let mut peer = Peer::new("10.0.2.31:8009");
        let theirs = view(!own_in_recovery, 1);
        peer.answered(
            NodeState::new("db2", "x", theirs, Vec::new(), at(NOW)),
            at(NOW),
        );
        Nodes {
            peers: vec![peer],
            sample: view(own_in_recovery, 1).sample,
            server: None,
        }
    }

    fn judged(csv: &str, nodes: &Nodes) -> Vec<String> {
        let settings = config::Haproxy {
            stats_url: None,
            primary_backend: "primary".to_owned(),
            replica_backend: "replica".to_owned(),
        };
        let values = judge_routes(csv, &settings, ("db1", nodes), at(NOW)).unwrap();
        values
            .into_iter()
            .map(|value| value.detail.unwrap())
            .collect()
    }

    #[test]
    fn each_backend_is_compared_with_the_roles() {
        let csv = |primary: [&str; 2], replica: [&str; 2]| {
            format!(
                "# pxname,svname,status,addr\nprimary,FRONTEND,OPEN,\nprimary,db1,{},10.0.2.30:6432\nprimary,db2,{},10.0.2.31:6432\n\
                 primary,BACKEND,UP,\nreplica,a,{},10.0.2.31:6432\nreplica,db1,{},10.0.2.30:6432\nother,db9,UP,\n\n",
                primary[0], primary[1], replica[0], replica[1]
            )
        };
        let fine = csv(["UP", "DOWN"], ["UP 2/3", "DOWN"]);
        assert_eq!(judged(&fine, &nodes(false)), ["", ""]);
        // The nodes have changed their roles, and HAProxy has not seen it.
        assert_eq!(
            judged(&fine, &nodes(true)),
            [
                "db1 is up there and is a replica; db2 is a primary and is down there",
                "a is up there and is a primary; db1 is a replica and is down there",
            ]
        );
        let none = csv(["DOWN", "DOWN"], ["DOWN", "DOWN"]);
        assert_eq!(
            judged(&none, &nodes(false))[0],
            "db1 is a primary and is down there"
        );
    }

    #[test]
    fn another_page_and_a_missing_backend_are_unknown() {
        let settings = config::Haproxy {
            stats_url: None,
            primary_backend: "pg".to_owned(),
            replica_backend: "replica".to_owned(),
        };
        for (csv, words) in [
            ("<html>", "no page of HAProxy's statistics"),
            (
                "# pxname,svname,status\nx,db1,UP",
                "no backend pg: see haproxy.primary_backend",
            ),
        ] {
            let nodes = nodes(false);
            let error = judge_routes(csv, &settings, ("db1", &nodes), at(NOW)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
