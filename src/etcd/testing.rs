//! A real etcd (of the distribution: testbed/install.sh) for tests.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// An etcd of our own.
pub struct Etcd {
    pub folder: TempDir,
    ports: [u16; 2],
    child: Child,
}

impl Etcd {
    pub async fn start() -> Etcd {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        let folder = tempfile::tempdir().unwrap();
        let child = Etcd::spawn(&folder, ports);
        let etcd = Etcd { folder, ports, child };
        etcd.ready().await;
        etcd
    }

    fn spawn(folder: &TempDir, ports: [u16; 2]) -> Child {
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        Command::new("etcd")
            .args(["--name", "default", "--log-level", "error", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .env("ETCD_UNSUPPORTED_ARCH", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("no etcd to test with: run testbed/install.sh")
    }

    pub async fn ready(&self) {
        let ready = async {
            while async { self.client().await?.get("x", None).await }.await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, ready).await.unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn start_again(&mut self) {
        self.child = Etcd::spawn(&self.folder, self.ports);
        self.ready().await;
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub async fn client(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
        Client::connect([self.address()], Some(options)).await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
