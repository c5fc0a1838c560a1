//! How long something takes, and a table of it.
//!
//! It runs in many short batches, and what counts is the mean of the faster half of them: whatever else the machine did
//! then only ever makes a batch slower. The spread says how much it did.

use std::time::Duration;

use tokio::time::Instant;

/// How long each row is measured, after some time to warm up.
const MEASURED: Duration = Duration::from_millis(1_500);
const WARM_UP: Duration = Duration::from_millis(300);
/// How long one batch lasts, about.
const BATCH: Duration = Duration::from_millis(1);

/// What one row came to, in nanoseconds of one run.
#[derive(Clone, Copy)]
struct Figure {
    mean: f64,
    fastest: f64,
    slow: f64,
}

/// Rows, printed as they come.
#[derive(Default)]
pub struct Table {
    targets: usize,
    met: usize,
}

impl Table {
    /// Names the columns.
    pub fn head(&mut self) {
        println!("{:<58} {:>10}   {:>19}   {:>8}", "one thread, each row by itself", "mean", "batches", "target");
    }

    /// Begins rows that have something in common.
    pub fn title(&mut self, title: &str) {
        println!("\n{title}:");
    }

    /// Measures what runs so many times.
    pub fn row(&mut self, name: &str, target_us: Option<f64>, mut run: impl FnMut(u32)) {
        let [figure] = measure([&mut run]);
        self.print(name, target_us, figure);
    }

    /// Measures two by turns, and tells how much longer the second takes.
    pub fn difference<'a>(
        &mut self,
        mut one: (&str, impl FnMut(u32) + 'a),
        mut other: (&str, impl FnMut(u32) + 'a),
        name: &str,
    ) {
        let [without, with] = measure([&mut one.1, &mut other.1]);
        self.print(one.0, None, without);
        self.print(other.0, None, with);
        println!("{name:<58} {:>10}", shown(with.mean - without.mean));
    }

    /// Tells what was measured a single time.
    pub fn once(&mut self, name: &str, took: Duration) {
        println!("{name:<58} {:>10}", shown(took.as_secs_f64() * 1e9));
    }

    /// Says how many targets are met.
    pub fn verdict(&self) -> String {
        format!("\n{} of {} targets met", self.met, self.targets)
    }

    fn print(&mut self, name: &str, target_us: Option<f64>, figure: Figure) {
        let verdict = target_us.map_or_else(String::new, |target| {
            let is_met = figure.mean <= target * 1_000.0;
            self.targets += 1;
            self.met += usize::from(is_met);
            format!("{:>8}  {}", shown(target * 1_000.0), if is_met { "met" } else { "NOT met" })
        });
        let spread = format!("{} - {}", shown(figure.fastest), shown(figure.slow));
        println!("{}", format!("{name:<58} {:>10}   {spread:>19}   {verdict}", shown(figure.mean)).trim_end());
    }
}

/// Runs batches of each by turns, so that what else the machine does meets all alike.
fn measure<const N: usize>(mut runs: [&mut dyn FnMut(u32); N]) -> [Figure; N] {
    let times = runs.each_mut().map(|run| {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < WARM_UP {
            run(16);
            count += 16;
        }
        let per_batch = f64::from(count) * BATCH.as_secs_f64() / began.elapsed().as_secs_f64();
        (per_batch as u32).max(1)
    });
    let mut batches: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    let began = Instant::now();
    while began.elapsed() < MEASURED * N as u32 {
        for ((run, times), batches) in runs.iter_mut().zip(times).zip(&mut batches) {
            let began = Instant::now();
            run(times);
            batches.push(began.elapsed().as_nanos() as f64 / f64::from(times));
        }
    }
    batches.map(|mut batches| {
        batches.sort_by(f64::total_cmp);
        let best = batches.get(..batches.len().div_ceil(2)).unwrap_or_default();
        let mean = best.iter().sum::<f64>() / best.len() as f64;
        let at = |share: usize| batches.get((batches.len() - 1) * share / 100).copied().unwrap_or_default();
        Figure { mean, fastest: at(0), slow: at(95) }
    })
}

/// Writes nanoseconds with three digits or so.
fn shown(ns: f64) -> String {
    match ns.abs() {
        size if size < 999.5 => format!("{ns:.0} ns"),
        size if size < 99_950.0 => format!("{:.1} us", ns / 1e3),
        size if size < 999_500.0 => format!("{:.0} us", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}
