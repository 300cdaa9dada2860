//! The two programs that a test can run with, and the image that holds them.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Walrus,
    WalG,
}

impl Program {
    pub fn path(self) -> &'static str {
        match self {
            Program::Walrus => "/usr/local/bin/walrus",
            Program::WalG => "/usr/local/bin/wal-g",
        }
    }

    /// Says that `test` does not run where the image is without the program.
    pub fn can_run(self, test: &str) -> bool {
        let there = self == Program::Walrus || image().has_wal_g;
        if !there {
            // Not eprintln!: what a passing test prints by it is never shown.
            let _ = writeln!(
                std::io::stderr(),
                "not run: {test}: wal-g is not on PATH where the image was built"
            );
        }
        there
    }
}

/// Makes of each `fn NAME(program: Program)` the tests `NAME::walrus` and `NAME::wal_g`.
macro_rules! for_each_program {
    ($($body:ident),+ $(,)?) => {$(
        mod $body {
            use crate::harness::Program;

            #[test]
            fn walrus() {
                super::$body(Program::Walrus);
            }

            #[test]
            fn wal_g() {
                if Program::WalG.can_run(module_path!()) {
                    super::$body(Program::WalG);
                }
            }
        }
    )+};
}
pub(crate) use for_each_program;

/// A run that is cut off, or whose end nobody keeps, has said by then why each test failed.
fn tell_failures_at_once() {
    let print_captured = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a thread").to_owned();
        // Not eprintln!: see above.
        let _ = writeln!(std::io::stderr(), "\nFAILED {test}: {panic}");
        print_captured(panic);
    }));
}

/// The image that labs start from.
pub(super) struct Image {
    pub name: String,
    pub tag: String,
    has_wal_g: bool,
}

/// `XDB_LAB_IMAGE` or the one built last; looked for once, so that its absence is not taken for a pull that failed.
pub(super) fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        tell_failures_at_once();
        let image = std::env::var("XDB_LAB_IMAGE").unwrap_or_else(|_| "xdb-lab:latest".to_owned());
        let (name, tag) = image.split_once(':').expect("XDB_LAB_IMAGE is NAME:TAG");
        let inspected = Command::new("docker")
            .args([
                "image",
                "inspect",
                "-f",
                r#"{{index .Config.Labels "xdb.wal-g"}}"#,
                &image,
            ])
            .output()
            .expect("docker is on PATH");
        let said = String::from_utf8_lossy(&inspected.stderr).into_owned();
        assert!(
            inspected.status.success(),
            "no image {image}: {said}HINT: ./dev image builds it"
        );
        Image {
            name: name.to_owned(),
            tag: tag.to_owned(),
            has_wal_g: inspected.stdout.starts_with(b"yes"),
        }
    })
}
