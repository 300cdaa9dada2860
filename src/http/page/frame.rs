//! What every page has around it: head, style, policy.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::cluster::Status;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");

/// Nothing but the style sheet and the script above, and what that script asks of this daemon.
pub(super) fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            STANDARD.encode(Sha256::digest(STYLE)),
            STANDARD.encode(Sha256::digest(SCRIPT))
        )
    });
    &POLICY
}

/// The page of the cluster, which refreshes itself.
pub(super) fn refreshing(status: &Status, main: &Markup) -> Markup {
    let title = format!(
        "{}: {} on {}",
        status.verdict.to_uppercase(),
        status.cluster,
        status.reporter
    );
    let body = html! {
        a.skip href="#main" { "Skip to the cluster" }
        p #stale role="alert" {}
        main #main tabindex="-1" { (main) }
        footer {
            p.muted {
                "xdb " (env!("CARGO_PKG_VERSION")) " on " (status.reporter)
                ". The same as data: " a href="/api/status" { "/api/status" } ", " a href="/metrics" { "/metrics" } "."
            }
        }
        script { (PreEscaped(SCRIPT)) }
    };
    // Without the script the browser reloads it.
    let head = html! {
        noscript { meta http-equiv="refresh" content="30"; }
    };
    document(&title, &head, &body)
}

/// A page that does not change.
pub(super) fn plain(title: &str, content: &Markup) -> Markup {
    document(title, &html! {}, &html! { main { (content) } })
}

fn document(title: &str, head: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
                (head)
            }
            body { (body) }
        }
    }
}
