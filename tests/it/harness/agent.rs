//! Runs commands in a container by a program that stays there: `docker exec` for each took half of the suite's time.

use std::io::{self, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::Output;

const PROGRAM: &str = include_str!("agent.pl");
/// What `docker exec` says of a command whose container ended.
const CONTAINER_ENDED: i32 = 137;

/// A command that still runs after this many seconds is killed; its exit code is then 124.
const DEADLINE_SECS: u32 = 240;

/// Who a command runs as.
#[derive(Clone, Copy)]
pub enum User {
    Root,
    /// The user that PostgreSQL and xdb run as, in its home.
    Postgres,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            User::Root => "root",
            User::Postgres => "postgres",
        }
    }
}

/// The agents of one container: as many as there were commands at once.
pub struct Agents {
    container: String,
    idle: Mutex<Vec<Agent>>,
}

struct Agent {
    docker: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Agents {
    /// For the container of this name or id, which need not run yet.
    pub fn of(container: &str) -> Agents {
        Agents {
            container: container.to_owned(),
            idle: Mutex::default(),
        }
    }

    /// Runs `command` in a session of its own, without standard input, until both of its streams are closed.
    pub fn run(&self, user: User, command: &[&str], environment: &[(&str, &str)]) -> Output {
        let idle = self.idle().pop();
        let mut agent = idle.unwrap_or_else(|| Agent::start(&self.container));
        match agent.ask(user, command, environment) {
            Ok(output) => {
                self.idle().push(agent);
                output
            }
            Err(error) => agent.ended(&error),
        }
    }

    /// Before the container ends: those that run there end with it.
    pub fn forget(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Agent>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    fn start(container: &str) -> Agent {
        let mut docker = Command::new("docker")
            .args(["exec", "-i", container, "perl", "-e", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker is on PATH");
        let (requests, answers) = (docker.stdin.take(), docker.stdout.take());
        Agent {
            docker,
            requests: requests.expect("a pipe"),
            answers: BufReader::new(answers.expect("a pipe")),
        }
    }

    fn ask(
        &mut self,
        user: User,
        command: &[&str],
        environment: &[(&str, &str)],
    ) -> io::Result<Output> {
        let count = environment.len();
        let mut request = format!("{}\0{DEADLINE_SECS}\0{count}", user.name()).into_bytes();
        let variables = environment.iter().flat_map(|&(name, value)| [name, value]);
        for field in variables.chain(command.iter().copied()) {
            request.push(0);
            request.extend(field.bytes());
        }
        request.push(0);
        let length = u32::try_from(request.len()).expect("commands are short");
        self.requests.write_all(&length.to_be_bytes())?;
        self.requests.write_all(&request)?;
        let [code, stdout, stderr] = [self.number()?, self.number()?, self.number()?];
        Ok(Output {
            code: i32::try_from(code).expect("exit codes are small"),
            stdout: self.text(stdout)?,
            stderr: self.text(stderr)?,
        })
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.answers.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn text(&mut self, length: u32) -> io::Result<String> {
        let mut bytes = vec![0; usize::try_from(length).expect("a length")];
        self.answers.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What docker said of it, where the container does not run.
    fn ended(mut self, error: &io::Error) -> Output {
        let mut stderr = String::new();
        let said = self.docker.stderr.take();
        let _ = said.map(|mut said| said.read_to_string(&mut stderr));
        let code = self.docker.wait().ok().and_then(|status| status.code());
        Output {
            code: code.filter(|code| *code != 0).unwrap_or(CONTAINER_ENDED),
            stdout: String::new(),
            stderr: format!("{stderr}{error}"),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.docker.kill();
        let _ = self.docker.wait();
    }
}
