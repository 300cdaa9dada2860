//! A web server that receives what xdb sends: it keeps each request, and answers as the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Such as `POST /api/v2/alerts`.
    pub line: String,
    /// In lower case, as `name: value`.
    pub headers: Vec<String>,
    pub body: Value,
    /// With which it was answered.
    pub status: u16,
}

pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    status: Arc<AtomicU16>,
    thread: Option<JoinHandle<()>>,
}

/// The status of a server that reads a request and never answers.
pub const SILENT: u16 = 0;
/// The status of a server that sends a byte of its answer each half second.
pub const SLOW: u16 = 2;
const CLOSE: u16 = 1;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Receiver {
    /// At a free port, with 200 for each request.
    pub fn start() -> Receiver {
        Receiver::at("127.0.0.1:0".parse().unwrap())
    }

    pub fn at(address: SocketAddr) -> Receiver {
        Receiver::new(address, |stream| Some(Box::new(stream)))
    }

    /// At a free port, with TLS by a certificate and its key as PEM.
    pub fn secured(certificate: &str, key: &str) -> Receiver {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        let config = Arc::new(config.unwrap());
        Receiver::new("127.0.0.1:0".parse().unwrap(), move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        })
    }

    fn new(
        address: SocketAddr,
        open: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().unwrap();
        let (received, status) = (Arc::default(), Arc::new(AtomicU16::new(200)));
        let (keep, answer) = (Arc::clone(&received), Arc::clone(&status));
        let thread = std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let status = answer.load(Ordering::SeqCst);
                if status == CLOSE {
                    return;
                }
                let stream = stream.ok().and_then(&open);
                silent.extend(stream.and_then(|it| serve(it, status, &keep)));
            }
        });
        Receiver {
            address,
            received,
            status,
            thread: Some(thread),
        }
    }

    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.answer(CLOSE);
        // Wakes the thread, which then closes the port.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives the connection back where it is to stay open without an answer.
fn serve(
    mut stream: Box<dyn Stream>,
    status: u16,
    keep: &Mutex<Vec<Received>>,
) -> Option<Box<dyn Stream>> {
    keep.lock().unwrap().push(Received {
        status,
        ..read(&mut stream)?
    });
    if status == SILENT {
        return Some(stream);
    }
    let answer =
        format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    if status == SLOW {
        for byte in answer.as_bytes() {
            stream.write_all(&[*byte]).ok()?;
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    stream.write_all(answer.as_bytes()).ok()?;
    stream.flush().ok()?;
    None
}

fn read(stream: &mut dyn Stream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<String> = lines[1..].iter().map(|it| it.to_lowercase()).collect();
    let length = headers
        .iter()
        .find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|it| it.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Received {
        line: lines[0].trim_end_matches(" HTTP/1.1").to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        status: 0,
    })
}
