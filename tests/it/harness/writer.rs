//! A client that writes through every outage, and the judgement that follows each fault of the archive.

use std::time::Duration;

use super::{Background, Lab, Program, eventually};

/// In which a fault that is over may be made good: PostgreSQL's archiver asks again after a minute at the latest.
const MENDED: Duration = Duration::from_secs(120);

/// Commits 1, 2, 3, … into `counter`, tries each number until it is acknowledged, and notes the last that was. Beside it
/// notes each file that gets its `.done` mark, with a digest of what `pg_wal` holds under its name at that moment.
const WRITE: &str = r"
    cd $(mktemp -d) && touch done && echo 0 >acknowledged && ln -sfn $PWD /tmp/writer || exit 1
    wal=/var/lib/postgresql/17/main/pg_wal
    # Not Debian's wrapper, which takes four times as long; and with pauses and few processes, or a writer keeps a processor
    # from other tests.
    psql=/usr/lib/postgresql/17/bin/psql
    next=1
    declare -A seen
    shopt -s nullglob
    exec {never}<> <(:)
    until [ -e stop ]; do
        if timeout 5 $psql -XAtqc 'INSERT INTO counter VALUES ('$next') ON CONFLICT DO NOTHING' 2>/dev/null; then
            echo $next >new && mv new acknowledged && next=$((next + 1))
        fi
        for mark in $wal/archive_status/*.done; do
            name=${mark##*/} name=${name%.done}
            [ ${seen[$name]-} ] || { seen[$name]=1 && echo $name $(md5sum <$wal/$name) >>done; }
        done
        read -t 0.2 -u $never
    done";

/// A line for each file with a `.done` mark, now or ever seen, that the bucket does not hold as it was.
const JUDGE: &str = r#"
    cd /tmp/writer
    stored=/srv/s3/walg-test/main/pg17/wal_005
    marks=/var/lib/postgresql/17/main/pg_wal/archive_status
    for name in $(cd $marks && ls | sed -n 's/\.done$//p'); do grep -q $name done || echo $name >>done; done
    while read -r name digest _; do
        if [ -e $stored/$name.lz4 ]; then content=$(lz4 -dc $stored/$name.lz4 | md5sum)
        elif [ -e $stored/$name ]; then content=$(md5sum <$stored/$name)
        else echo "$name is marked done and not in the bucket"; continue
        fi
        [ -n "$digest" ] || digest=$(md5sum <$marks/../$name 2>/dev/null | cut -d' ' -f1)
        [ -z "$digest" ] || [ "${content%% *}" = "$digest" ] || echo "$name is marked done and stored with other content"
    done <done
    for segment in $(cd $stored && ls | grep -E '^[0-9A-F]{24}\.lz4$'); do
        [ $(lz4 -dc $stored/$segment | wc -c) = 16777216 ] || echo "$segment is no whole segment"
    done"#;

pub struct Writer<'a> {
    lab: &'a Lab,
    process: Background<'a>,
}

impl Lab {
    /// A lab whose segments end only where a test ends them.
    pub fn start_quiet(program: Program) -> Self {
        let lab = Self::start(program);
        lab.sql("ALTER SYSTEM SET archive_timeout = 0");
        lab.sql("SELECT pg_reload_conf()");
        lab
    }

    /// Starts to write; the table is made now.
    pub fn writer(&self) -> Writer<'_> {
        self.sql("CREATE TABLE counter (id bigint PRIMARY KEY)");
        let process = self.in_background(&["bash", "-c", WRITE]);
        let writer = Writer { lab: self, process };
        writer.wrote(1);
        writer
    }

    /// Ends `count` segments, each with rows of the writer in it.
    pub fn end_segments(&self, writer: &Writer, count: usize) {
        for _ in 0..count {
            writer.wrote(1);
            self.sql("SELECT pg_switch_wal()");
        }
    }

    /// The files that wait to be archived.
    pub fn waiting(&self) -> Vec<String> {
        let marks = "/var/lib/postgresql/17/main/pg_wal/archive_status";
        let ready = self.ok(&format!("cd {marks} && ls | sed -n 's/\\.ready$//p'"));
        ready.lines().map(str::to_owned).collect()
    }

    /// What is marked done and not stored as it was, a line each; without waiting for anything.
    pub fn lies(&self) -> String {
        self.ok(JUDGE)
    }

    /// The judgement after each fault that is over: all that PostgreSQL was told to be archived is in the bucket with the
    /// right content, no gap is left, and a restore has every row whose commit was acknowledged. Needs a base backup.
    #[track_caller]
    pub fn judge_archive(&self, writer: Writer) {
        let acknowledged = writer.stop();
        assert!(acknowledged > 0);
        eventually("the last rows' segment ends", MENDED, || {
            let switch = "psql -XAtqc 'SELECT pg_switch_wal()'";
            (self.sh_as_postgres(switch).code == 0).then_some(())
        });
        eventually("nothing waits to be archived", MENDED, || {
            self.waiting().is_empty().then_some(())
        });
        assert_eq!(self.lies(), "");
        let verified = self.xdb(&["archive", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        let rows =
            format!("SELECT count(*) >= {acknowledged} AND max(id) = count(*) FROM public.counter");
        let restored = self.xdb(&["restore-test", "--sql", &rows]);
        assert_eq!(restored.code, 0, "{acknowledged} rows: {restored:?}");
        self.assert_nothing_left_behind();
    }
}

impl Writer<'_> {
    /// The last number whose commit was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let noted = self
            .lab
            .ok("cat /tmp/writer/acknowledged 2>/dev/null || echo 0");
        noted.parse().expect("a number")
    }

    /// Waits until it has committed `rows` more.
    pub fn wrote(&self, rows: u64) {
        let before = self.acknowledged();
        eventually("the writer writes", MENDED, || {
            (self.acknowledged() >= before + rows).then_some(())
        });
    }

    fn stop(self) -> u64 {
        self.lab.ok("touch /tmp/writer/stop");
        self.process.wait(MENDED);
        self.acknowledged()
    }
}
