//! Processes that start, meet faults, end, and start again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use oribi::coordination::Coordination;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::link::{Link, Loss, SESSION_TIMEOUT};
use crate::sim::{Sim, lock};

/// How long after the last fault all is to be well: sessions end, daemons start anew, and a write
/// whose reply was lost is cleared up.
pub const RECOVERY: Duration = Duration::from_secs(5 * SESSION_TIMEOUT.as_secs());

/// What one process does until it leaves, given its number and its way to the store. It leaves when it
/// is told to, in good order.
pub type Program =
    dyn Fn(usize, Arc<Link>, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync;

/// The processes of a schedule.
pub struct Processes {
    sim: Arc<Sim>,
    places: Vec<Place>,
}

/// A process, in whichever of its lives.
#[derive(Default)]
struct Place {
    link: Mutex<Option<Arc<Link>>>,
    leave: Mutex<CancellationToken>,
    kill: Notify,
}

impl Processes {
    /// Starts some, each of which lives until it has ended and starts again then.
    pub fn start(sim: &Arc<Sim>, count: usize, program: Arc<Program>) -> Arc<Self> {
        let places = (0..count).map(|_| Place::default()).collect();
        let processes = Arc::new(Self { sim: sim.clone(), places });
        for number in 0..count {
            std::fs::create_dir_all(sim.directory.join(number.to_string())).expect("a directory");
            sim.spawn("a process", processes.clone().live(number, program.clone()));
        }
        processes
    }

    /// The processes that there are.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.places.iter().filter_map(|place| lock(&place.link).clone()).collect()
    }

    async fn live(self: Arc<Self>, number: usize, program: Arc<Program>) {
        let place = &self.places[number];
        for life in 1.. {
            sleep(self.sim.between(0, 300)).await;
            let link = Link::open(&self.sim, format!("{number}.{life}"));
            let leave = CancellationToken::new();
            *lock(&place.link) = Some(link.clone());
            *lock(&place.leave) = leave.clone();
            let living = program(number, link.clone(), leave);
            tokio::select! {
                biased;
                () = place.kill.notified() => {}
                () = link.process.run(living) => link.close().await,
            }
            *lock(&place.link) = None;
            link.die();
            let pause = if self.sim.is_calm() { 300 } else { 1500 };
            sleep(self.sim.between(100, pause)).await;
        }
    }

    /// Faults, for some time.
    pub async fn suffer(&self, time: Duration) {
        let end = Instant::now() + time;
        // Some schedules are calmer than others.
        let pause = *self.sim.pick(&[150, 500, 1500]);
        while Instant::now() < end && !self.sim.is_over() {
            sleep(self.sim.between(5, pause)).await;
            self.fault();
        }
        self.sim.calm();
        for link in self.links() {
            link.heal();
            if link.process.is_stopped() {
                link.go_on();
            }
        }
    }

    fn fault(&self) {
        let sim = &self.sim;
        let place = sim.pick(&self.places);
        let Some(link) = lock(&place.link).clone() else { return };
        let time = if sim.happens(60) { sim.between(5, 600) } else { sim.between(600, 9000) };
        match sim.below(100) {
            0..22 => link.cut(time, sim.below(101)),
            22..44 if !link.process.is_stopped() => {
                link.stop();
                let stopped = link.clone();
                sim.spawn("SIGCONT", async move {
                    sleep(time).await;
                    if stopped.process.is_stopped() {
                        stopped.go_on();
                    }
                });
            }
            44..56 => link.lose(Some(Loss::Request)),
            56..72 => link.lose(Some(Loss::Reply)),
            72..80 => {
                link.slow(true);
                let slow = link.clone();
                sim.spawn("a slow network", async move {
                    sleep(time).await;
                    slow.slow(false);
                });
            }
            80..86 => place.kill.notify_one(),
            86..91 => lock(&place.leave).cancel(),
            _ => {}
        }
    }
}
