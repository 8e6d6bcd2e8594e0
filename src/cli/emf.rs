//! Prints metrics for CloudWatch on standard output, from a thread of its own: a reader that stops reading, or is gone,
//! holds up nobody else.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::EmfConfig;
use crate::env::Clock;
use crate::metrics::Metrics;
use crate::metrics::emf::Emf;

/// How long the end of the process waits for the last line.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Prints a line every interval, and a last one when it is stopped.
pub(super) struct Printer {
    stop: Sender<Infallible>,
    ended: oneshot::Receiver<()>,
}

impl Printer {
    /// `None` where nothing is to be printed.
    pub(super) fn start(config: &EmfConfig, metrics: Arc<Metrics>, clock: Clock) -> io::Result<Option<Self>> {
        config.enabled.then(|| Self::start_on(io::stdout(), config, metrics, clock)).transpose()
    }

    fn start_on(
        mut out: impl Write + Send + 'static,
        config: &EmfConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (running, ended) = oneshot::channel();
        let (emf, interval) = (Emf::new(config), config.interval);
        std::thread::Builder::new().name("emf".to_owned()).spawn(move || {
            print(emf, interval, &metrics, clock, &stopped, &mut out);
            drop(running);
        })?;
        Ok(Self { stop, ended })
    }

    /// Waits for the last line, but not for a reader that does not read.
    pub(super) async fn stop(self) {
        drop(self.stop);
        let _written = timeout(LAST_LINE, self.ended).await;
    }
}

fn print(
    mut emf: Emf,
    interval: Duration,
    metrics: &Metrics,
    clock: Clock,
    stop: &Receiver<Infallible>,
    out: &mut impl Write,
) {
    let mut failing = false;
    loop {
        let last = !matches!(stop.recv_timeout(interval), Err(RecvTimeoutError::Timeout));
        let line = emf.line(metrics, clock.now());
        match out.write_all(line.text().as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {
                emf.written(line);
                failing = false;
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "metrics cannot be written to standard output (emf.enabled); the next line tells what this one could not");
                }
                failing = true;
            }
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn config() -> EmfConfig {
        EmfConfig {
            enabled: true,
            namespace: "trailhound".to_owned(),
            service: "trailhound".to_owned(),
            interval: Duration::from_secs(60),
        }
    }

    fn clock() -> Clock {
        Clock::starting_at(datetime!(2026-03-01 12:00 UTC))
    }

    fn received(text: &[u8]) -> Vec<f64> {
        let lines = std::str::from_utf8(text).unwrap().lines();
        lines
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["MessagesReceived"].as_f64().unwrap())
            .collect()
    }

    #[test]
    fn a_stop_prints_what_the_last_line_did_not() {
        let metrics = Metrics::new().unwrap();
        metrics.messages_received.inc_by(5);
        let (stop, stopped) = mpsc::channel();
        drop(stop);
        let mut out = Vec::new();
        print(Emf::new(&config()), Duration::from_secs(3600), &metrics, clock(), &stopped, &mut out);
        assert_eq!(received(&out), [5.0]);
    }

    /// Refuses the first write, and ends the printing with the third.
    struct Broken<'a> {
        writes: usize,
        out: Vec<u8>,
        metrics: &'a Metrics,
        stop: Option<Sender<Infallible>>,
    }

    impl Write for Broken<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            self.metrics.messages_received.inc_by(10);
            match self.writes {
                1 => return Err(io::ErrorKind::BrokenPipe.into()),
                3 => self.stop = None,
                _ => {}
            }
            self.out.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_comes_back_misses_nothing() {
        let metrics = Metrics::new().unwrap();
        metrics.messages_received.inc();
        let (stop, stopped) = mpsc::channel();
        let mut out = Broken { writes: 0, out: Vec::new(), metrics: &metrics, stop: Some(stop) };
        print(Emf::new(&config()), Duration::from_millis(1), &metrics, clock(), &stopped, &mut out);
        assert_eq!(received(&out.out), [11.0, 10.0, 10.0]);
    }

    /// A pipe that is full.
    struct Stuck(Receiver<Infallible>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _released = self.0.recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_delays_the_end_by_a_second_at_most() {
        let (release, held) = mpsc::channel();
        let metrics = Arc::new(Metrics::new().unwrap());
        let printer = Printer::start_on(Stuck(held), &config(), metrics, clock()).unwrap();
        timeout(2 * LAST_LINE, printer.stop()).await.expect("an end");
        drop(release);
    }
}
