//! Real ZooKeeper servers, from the package of the operating system.
//!
//! `ZOOKEEPER_CLASSPATH` names other jars, to test against another version, and `ZOOKEEPER_PACKAGE` the package
//! in which they have ZooKeeper, if it is not its own (shaded ones such as Flink's).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::await_stop;

const PACKAGED: &str = "/usr/share/java/zookeeper.jar";

/// What TLS needs and the package's own list leaves out.
const NETTY: &[&str] = &["netty-codec", "netty-resolver", "netty-transport-native-unix-common"];

/// The unit of the server's time: sessions may be as short as two ticks.
const TICK: Duration = Duration::from_millis(200);

/// Java takes its time on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A server, alone or a member of an [`Ensemble`]. Killed when dropped, or when the test process
/// dies.
pub struct Server {
    dir: TempDir,
    port: u16,
    secure_port: u16,
    /// Where its classes are, if not where those of all others are.
    classpath: Option<String>,
    running: Option<Running>,
}

/// A shell that watches over the server: it prints the server's process id, and kills it as soon
/// as its own standard input ends.
struct Running {
    shell: Child,
    pid: u32,
}

impl Server {
    /// Starts a standalone server and waits until it serves.
    pub fn start() -> Self {
        let mut server = Self::prepare(free_port(), "", None);
        server.launch();
        server.wait_until_serving();
        server
    }

    /// Starts a standalone server that knows these users by SASL, each as `name=password`.
    pub fn start_with_users(users: &[&str]) -> Self {
        let provider = class("server.auth.SASLAuthenticationProvider");
        let lines = format!("authProvider.sasl={provider}\n");
        let mut server = Self::prepare(free_port(), &lines, None);
        let users: String = users
            .iter()
            .filter_map(|user| user.split_once('='))
            .map(|(name, password)| format!("  user_{name}=\"{password}\"\n"))
            .collect();
        let module = class("server.auth.DigestLoginModule");
        let jaas = format!("Server {{\n  {module} required\n{users};\n}};\n");
        fs::write(server.dir.path().join("jaas"), jaas).expect("users are written");
        server.launch();
        server.wait_until_serving();
        server
    }

    /// Starts a standalone server that also listens with TLS: with a certificate and key in one
    /// file, and the authority of its clients' certificates, which it `need`s, `want`s or not.
    pub fn start_with_tls(identity: &Path, authority: &Path, clients: &str) -> Self {
        let secure_port = free_port();
        let (identity, authority) = (identity.display(), authority.display());
        let netty = class("server.NettyServerCnxnFactory");
        let lines = format!(
            "secureClientPort={secure_port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory={netty}\n\
             ssl.keyStore.location={identity}\nssl.keyStore.type=PEM\n\
             ssl.trustStore.location={authority}\nssl.trustStore.type=PEM\n\
             ssl.clientAuth={clients}\n"
        );
        let mut server = Self::prepare(free_port(), &lines, None);
        server.secure_port = secure_port;
        server.launch();
        server.wait_until_serving();
        server
    }

    /// `lines` go into the server's configuration.
    fn prepare(port: u16, lines: &str, id: Option<usize>) -> Self {
        let dir = TempDir::with_prefix("oribi-zookeeper-").expect("a temporary directory");
        let tick = TICK.as_millis();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("a data directory");
        if let Some(id) = id {
            fs::write(data.join("myid"), id.to_string()).expect("myid is written");
        }
        let config = format!(
            "tickTime={tick}\ninitLimit=50\nsyncLimit=25\nmaxSessionTimeout=60000\n\
             dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
             4lw.commands.whitelist=*\n{lines}",
            data.display()
        );
        fs::write(dir.path().join("zoo.cfg"), config).expect("zoo.cfg is written");
        let log = "log4j.rootLogger=WARN, E\nlog4j.appender.E=org.apache.log4j.ConsoleAppender\n\
                   log4j.appender.E.target=System.err\n\
                   log4j.appender.E.layout=org.apache.log4j.PatternLayout\n\
                   log4j.appender.E.layout.ConversionPattern=%d %p %c: %m%n\n";
        fs::write(dir.path().join("log4j.properties"), log).expect("log4j.properties is written");
        Self { dir, port, secure_port: 0, classpath: None, running: None }
    }

    fn launch(&mut self) {
        let classpath = self.classpath.clone().unwrap_or_else(classpath);
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"));
        let properties = self.dir.path().join("log4j.properties");
        let mut shell = Command::new("sh")
            .args(["-c", "\"$@\" >/dev/null & echo $!; read -r _; kill -9 $!", "sh", "java"])
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dzookeeper.admin.enableServer=false")
            .arg(format!("-Dlog4j.configuration=file:{}", properties.display()))
            .args(self.users().map(|jaas| format!("-Djava.security.auth.login.config={jaas}")))
            .args(["-cp", &classpath, &class("server.quorum.QuorumPeerMain")])
            .arg(self.dir.path().join("zoo.cfg"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("sh starts");
        let mut pid = String::new();
        let stdout = shell.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut pid).expect("the shell tells the process id");
        let pid = pid.trim().parse().expect("a process id");
        self.running = Some(Running { shell, pid });
    }

    /// The file with the users that the server knows.
    fn users(&self) -> Option<String> {
        let path = self.dir.path().join("jaas");
        path.exists().then(|| path.display().to_string())
    }

    /// What `zkCli.sh` prints for these commands, given one after the other.
    pub fn cli(&self, commands: &[&str]) -> String {
        let mut cli = Command::new("java")
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &classpath()])
            .args([&class("ZooKeeperMain"), "-server", &self.connect_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("java starts");
        let mut stdin = cli.stdin.take().expect("a pipe");
        let commands = commands.join("\n");
        stdin.write_all(format!("{commands}\nquit\n").as_bytes()).expect("zkCli reads");
        drop(stdin);
        let output = cli.wait_with_output().expect("zkCli ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }

    /// Waits until the server answers and, in an ensemble, has a leader.
    pub fn wait_until_serving(&self) {
        let give_up = Instant::now() + START_TIMEOUT;
        while !self.four_letters("srvr").is_some_and(|answer| answer.contains("Mode:")) {
            assert!(Instant::now() < give_up, "ZooKeeper does not serve:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// `host:port`, without a chroot.
    pub fn connect_string(&self) -> String {
        self.address().to_string()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `host:port` for TLS, of a server started with it.
    pub fn secure_connect_string(&self) -> String {
        format!("localhost:{}", self.secure_port)
    }

    /// The process id of a running server.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").pid
    }

    /// Kills it (SIGKILL), as a crash would.
    pub fn stop(&mut self) {
        if let Some(Running { mut shell, pid }) = self.running.take() {
            signal("KILL", pid);
            drop(shell.stdin.take());
            shell.wait().expect("the shell ends");
        }
    }

    /// Starts it again on the same data and port, and waits until it serves.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
        self.wait_until_serving();
    }

    /// The same with other jars.
    pub fn restart_with(&mut self, classpath: &str) {
        self.classpath = Some(classpath.to_owned());
        self.restart();
    }

    /// Starts it again on the same data and port, and does not wait for anything: without a majority
    /// it does not serve.
    pub fn launch_again(&mut self) {
        self.stop();
        self.launch();
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        signal("STOP", self.pid());
        await_stop(self.pid());
    }

    pub fn resume(&self) {
        signal("CONT", self.pid());
    }

    /// The answer to one of ZooKeeper's four-letter commands, such as `srvr` or `wchs`.
    pub fn four_letters(&self, command: &str) -> Option<String> {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.address(), patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.write_all(command.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One server for the tests that do not hurt it, as long as one of them runs.
pub fn shared() -> Arc<Server> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut running = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start());
        *running = Arc::downgrade(&server);
        server
    })
}

/// Several servers that form one store.
pub struct Ensemble {
    pub servers: Vec<Server>,
}

impl Ensemble {
    /// Starts an ensemble of `size` servers, and waits until each serves.
    pub fn start(size: usize) -> Self {
        let members: Vec<_> = (0..size).map(|_| [free_port(), free_port()]).collect();
        Self::start_between(&members, |_, to| members[to])
    }

    /// Starts one whose members listen on these ports, for the quorum and for elections, and see
    /// each other on those that `seen(from, to)` gives.
    pub fn start_between(members: &[[u16; 2]], seen: impl Fn(usize, usize) -> [u16; 2]) -> Self {
        let prepare = |own: usize| {
            let line = |member: usize| {
                let [quorum, election] =
                    if member == own { members[own] } else { seen(own, member) };
                format!("server.{}=127.0.0.1:{quorum}:{election}\n", member + 1)
            };
            let lines: String = (0..members.len()).map(line).collect();
            Server::prepare(free_port(), &lines, Some(own + 1))
        };
        let mut servers: Vec<_> = (0..members.len()).map(prepare).collect();
        servers.iter_mut().for_each(Server::launch);
        servers.iter().for_each(Server::wait_until_serving);
        Self { servers }
    }

    /// `host:port,host:port,host:port`, without a chroot.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(Server::connect_string).collect::<Vec<_>>().join(",")
    }

    /// The position of the present leader.
    pub fn leader(&self) -> Option<usize> {
        let leads = |server: &Server| {
            server.four_letters("srvr").is_some_and(|answer| answer.contains("Mode: leader"))
        };
        self.servers.iter().position(leads)
    }
}

/// A class of ZooKeeper's, by its name within the package.
fn class(name: &str) -> String {
    let package = std::env::var("ZOOKEEPER_PACKAGE");
    format!("{}.{name}", package.as_deref().unwrap_or("org.apache.zookeeper"))
}

fn classpath() -> String {
    std::env::var("ZOOKEEPER_CLASSPATH").unwrap_or_else(|_| {
        assert!(
            Path::new(PACKAGED).exists(),
            "{PACKAGED} is missing: these tests need a real ZooKeeper; on Debian, \
             `apt-get install zookeeper default-jre-headless`"
        );
        let netty = NETTY.iter().map(|jar| format!(":/usr/share/java/{jar}.jar"));
        PACKAGED.to_owned() + &netty.collect::<String>()
    })
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(status.expect("sh starts").success(), "kill -{name} {pid}");
}

/// A port below those that the kernel gives to outgoing connections, so that a server that was
/// stopped finds its own again.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20000;
    const COUNT: u16 = 12000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
