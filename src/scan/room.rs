//! A bound for what is held in memory of files that cannot be read where they are: those in archives, and objects.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Room for so many bytes. What is larger than all of it is let in alone.
#[derive(Debug)]
pub struct Room {
    size: u64,
    held: Mutex<u64>,
    freed: Condvar,
}

/// Some of a [`Room`], until it is dropped.
#[derive(Debug)]
pub struct Hold {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    #[must_use]
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(Self { size, held: Mutex::default(), freed: Condvar::new() })
    }

    /// Waits until there is room for so many bytes. Whoever takes in turn, and lets go in that turn, never waits for ever.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: u64) -> Hold {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && held.saturating_add(bytes) > self.size {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = held.saturating_add(bytes);
        Hold { room: Arc::clone(self), bytes }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.room.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(self.bytes);
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_finds_no_room_waits_for_it() {
        let room = Room::new(10);
        let all = room.take(100);
        let (sender, taken) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let room = Arc::clone(&room);
            move || {
                let _both = (room.take(4), room.take(6));
                sender.send(()).unwrap();
            }
        });
        assert!(taken.recv_timeout(Duration::from_millis(50)).is_err());
        drop(all);
        taken.recv().unwrap();
        waiting.join().unwrap();
        assert_eq!(*room.held.lock().unwrap(), 0);
    }
}
