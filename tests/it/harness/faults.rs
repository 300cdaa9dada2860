//! Faults between xdb and S3, by toxiproxy's HTTP API, and objects that nobody of this lab wrote.

use serde_json::Value;

use super::Lab;

impl Lab {
    /// Adds a toxic on the way to S3: `toxic("slow", json!({"type": "latency", "attributes": {"latency": 500}}))`.
    pub fn toxic(&self, name: &str, mut toxic: Value) {
        toxic["name"] = name.into();
        self.toxiproxy("POST", "/proxies/s3/toxics", &toxic.to_string());
    }

    pub fn remove_toxic(&self, name: &str) {
        self.toxiproxy("DELETE", &format!("/proxies/s3/toxics/{name}"), "");
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

    /// Puts an object straight into S3, past every fault; `path` begins with the bucket.
    pub fn put_object(&self, path: &str, content: &str) {
        let script = r#"printf %s "$CONTENT" | curl -sS --fail-with-body -m 10 --aws-sigv4 aws:amz:us-east-1:s3 \
            --user lab:lab-secret-key -X PUT --data-binary @- "http://127.0.0.1:7070/$OBJECT""#;
        let environment = [("CONTENT", content), ("OBJECT", path)];
        self.run(&["bash", "-c", script], &environment)
            .succeeded(&format!("put {path}"));
    }

    fn toxiproxy(&self, method: &str, path: &str, body: &str) {
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
        .succeeded(&format!("{method} {path} {body}"));
    }
}
