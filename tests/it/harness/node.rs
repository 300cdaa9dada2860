//! What the node of a lab is asked from outside, and what befalls its server.

use std::time::Duration;

use super::{Lab, eventually};

impl Lab {
    /// What `GET /path` of the daemon says: its status, 0 where there was none, and the body.
    pub fn http(&self, path: &str) -> (u32, String) {
        let curl = format!("curl -s -m 5 -w '\\n%{{http_code}}' http://127.0.0.1:8009/{path}");
        let said = self.sh(&curl).stdout;
        let (body, code) = said.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or_default(), body.to_owned())
    }

    /// A command of redis-cli; its words without quotes.
    pub fn redis(&self, command: &str) -> String {
        self.ok(&format!(
            "redis-cli --no-auth-warning -a lab-password {command}"
        ))
    }

    /// PostgreSQL crashes, comes back as a standby and is promoted, before its segment is full: a shutdown would end that.
    pub fn crash_and_promote(&self) {
        self.ok("touch /var/lib/postgresql/17/main/standby.signal");
        self.ok("kill -QUIT $(cat /run/service/postgres/supervise/pid)");
        eventually("it is a standby", Duration::from_secs(60), || {
            let ask = "/usr/lib/postgresql/17/bin/psql -XAtqc 'SELECT pg_is_in_recovery()'";
            (self.sh_as_postgres(ask).stdout == "t\n").then_some(())
        });
        self.sql("SELECT pg_promote()");
    }
}
