//! Work that may take its time: on a thread of its own, before which all others go.
//!
//! What keeps records of many statements computes for milliseconds at a time. On a thread that serves clients,
//! or beside these as their equal, that is what the slowest answers wait for.

use std::{fs, io, thread};

use rustix::process::{Pid, getpriority_process, setpriority_process};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

/// What is added to the thread's niceness (`man 7 sched`): it gets about a third of what each other thread gets
/// that wants the processor, too much to fall behind and too little to keep anybody waiting.
const NICENESS: i32 = 5;

/// Runs a task to its end on a thread of its own, with a runtime of its own. Where there is no room for one
/// the task runs where it was asked for. The thread goes on when this is dropped.
pub async fn run(name: &str, task: impl Future<Output = ()> + Send + 'static) {
    let here = Handle::current();
    let (end, ended) = oneshot::channel::<()>();
    let (work, todo) = oneshot::channel();
    let body = move || {
        let _end = end;
        if let Err(error) = step_back() {
            warn!(name = thread::current().name(), %error, "a thread's priority stays as it is");
        }
        let Ok(task) = todo.blocking_recv() else { return };
        // Made here: one that is not used must not be dropped on a thread that serves others.
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(task),
            Err(error) => {
                warn!(name = thread::current().name(), %error, "no runtime of its own");
                here.block_on(task);
            }
        }
    };
    match thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(_) => {
            let _ = work.send(Box::pin(task));
            let _ = ended.await;
        }
        Err(error) => {
            warn!(name, %error, "no thread of its own");
            task.await;
        }
    }
}

/// On Linux each thread has a priority, by its own id (`man 2 setpriority`).
fn step_back() -> io::Result<()> {
    let thread = Some(this_thread()?);
    Ok(setpriority_process(thread, (getpriority_process(thread)? + NICENESS).min(19))?)
}

fn this_thread() -> io::Result<Pid> {
    let path = fs::read_link("/proc/thread-self")?;
    let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    id.and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        getpriority_process(Some(this_thread().expect("an id"))).expect("a priority")
    }

    #[tokio::test]
    async fn it_has_a_thread_of_its_own_that_others_go_before() {
        let (tell, told) = oneshot::channel();
        let here = priority();
        run("in-background", async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let name = thread::current().name().map(str::to_owned);
            let _ = tell.send((name, priority()));
        })
        .await;
        let (name, there) = told.await.expect("it has run");
        assert_eq!(name.as_deref(), Some("in-background"));
        assert_eq!((there, priority()), ((here + NICENESS).min(19), here));
    }
}
