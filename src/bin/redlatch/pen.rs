//! Writing without waiting: a thread does it, because a pipe that nobody empties, or a terminal that stands still, must
//! not stop this program, which has a lease to keep and a command to watch.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

/// How many texts may wait for a reader that is slow.
const QUEUE: usize = 1000;
/// How long the end of this program may wait for that reader.
const LAST_TEXTS: Duration = Duration::from_secs(1);

/// When it is dropped, what was written last has a moment to get through.
pub struct Pen {
    texts: Option<SyncSender<String>>,
    done: Receiver<()>,
}

impl Pen {
    /// `name` is that of the thread, which ends at the first error.
    pub fn new(name: &str, mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let (texts, queue) = sync_channel::<String>(QUEUE);
        let (ended, done) = sync_channel(0);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for text in queue {
                if to.write_all(text.as_bytes()).and_then(|()| to.flush()).is_err() {
                    break;
                }
            }
            drop::<SyncSender<()>>(ended);
        })?;
        Ok(Self { texts: Some(texts), done })
    }

    /// Returns whether it will be written, unless that fails later.
    pub fn write(&self, text: String) -> bool {
        self.texts.as_ref().is_some_and(|texts| texts.try_send(text).is_ok())
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.texts = None;
        // Ends with an error when the thread is through, which is what we wait for.
        let _ = self.done.recv_timeout(LAST_TEXTS);
    }
}
