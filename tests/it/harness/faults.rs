//! Faults between xdb and S3, by toxiproxy's HTTP API, and objects that no program of this lab wrote.

use std::time::Duration;

use serde_json::Value;

use super::{Lab, Output, eventually};

impl Lab {
    /// Adds a toxic on the way to S3: `toxic("slow", json!({"type": "latency", "attributes": {"latency": 500}}))`.
    pub fn toxic(&self, name: &str, mut toxic: Value) {
        toxic["name"] = name.into();
        self.toxiproxy("POST", "/proxies/s3/toxics", &toxic.to_string());
    }

    /// Toxiproxy waits for what is on its way through the toxic, and after a kill there may be no reader left. Its connections are
    /// cut then.
    pub fn remove_toxic(&self, name: &str) {
        let path = format!("/proxies/s3/toxics/{name}");
        if self.ask_toxiproxy("DELETE", &path, "").code != 0 {
            self.proxy_enabled(false);
            // The first request may have ended by that.
            eventually("the toxic is gone", Duration::from_secs(10), || {
                let asked = self.ask_toxiproxy("DELETE", &path, "");
                (asked.code == 0 || asked.stdout.contains("toxic not found")).then_some(())
            });
            self.proxy_enabled(true);
        }
    }

    /// `false` cuts every connection to S3 and refuses new ones; `true` mends it.
    pub fn proxy_enabled(&self, enabled: bool) {
        self.toxiproxy(
            "POST",
            "/proxies/s3",
            &format!(r#"{{"enabled": {enabled}}}"#),
        );
    }

    /// Leads the way to S3 elsewhere: to another HOST:PORT.
    pub fn upstream(&self, address: &str) {
        self.toxiproxy(
            "POST",
            "/proxies/s3",
            &format!(r#"{{"upstream": "{address}", "enabled": true}}"#),
        );
    }

    /// Has a real HAProxy answer in S3's place from now on, with `status` to everything; [`Lab::upstream`] ends it.
    pub fn answer_always(&self, status: u16) {
        let configuration = format!(
            "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\n\
             frontend s3\n bind 127.0.0.1:7{status}\n http-request return status {status}\n"
        );
        let file = format!("/tmp/haproxy-{status}.cfg");
        self.write_file(&file, &configuration, "root:root", "0644");
        self.ok(&format!("haproxy -D -f {file}"));
        self.upstream(&format!("127.0.0.1:7{status}"));
    }

    /// Puts a proxy in S3's place that spoils one thing, as s3_between.pl names it; [`Lab::upstream`] ends it.
    pub fn s3_between(&self, port: u16, fault: &str) {
        let script = "/tmp/s3_between.pl";
        self.write_file(script, include_str!("s3_between.pl"), "root:root", "0644");
        self.ok(&format!(
            "setsid perl {script} {port} {fault} >/tmp/s3_between.{port} 2>&1 </dev/null & \
             until curl -s -o /dev/null -m 2 http://127.0.0.1:{port}/; do sleep 0.05; done"
        ));
        self.upstream(&format!("127.0.0.1:{port}"));
    }

    /// One request to S3 by the way that xdb takes; its status, and its body in a second line and after.
    pub fn s3(&self, method: &str, path: &str, more: &str) -> (u16, String) {
        let answered = self.ok(&format!(
            "curl -sS -m 20 --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key -X {method} {more} \
             -o /tmp/s3.body -w '%{{http_code}}' 'http://127.0.0.1:7000/{path}'; echo; cat /tmp/s3.body"
        ));
        let (code, body) = answered.split_once('\n').unwrap_or((&answered, ""));
        (code.parse().expect("a status"), body.to_owned())
    }

    /// Puts an object straight into S3, past every fault; `path` begins with the bucket.
    pub fn put_object(&self, path: &str, content: &str) {
        let script = r#"printf %s "$CONTENT" | curl -sS --fail-with-body -m 10 --aws-sigv4 aws:amz:us-east-1:s3 \
            --user lab:lab-secret-key -X PUT --data-binary @- "http://127.0.0.1:7070/$OBJECT""#;
        let environment = [("CONTENT", content), ("OBJECT", path)];
        self.run(&["bash", "-c", script], &environment)
            .succeeded(&format!("put {path}"));
    }

    fn toxiproxy(&self, method: &str, path: &str, body: &str) {
        self.ask_toxiproxy(method, path, body)
            .succeeded(&format!("{method} {path} {body}"));
    }

    fn ask_toxiproxy(&self, method: &str, path: &str, body: &str) -> Output {
        let url = format!("http://127.0.0.1:8474{path}");
        self.run(
            &[
                "curl",
                "-sS",
                "--fail-with-body",
                "-m",
                "10",
                "-X",
                method,
                "-d",
                body,
                &url,
            ],
            &[],
        )
    }
}
