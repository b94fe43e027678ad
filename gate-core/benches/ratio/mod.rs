//! Two sides in turns, and criterion's statistics of how long the one takes beside the other: what a machine or its disk does
//! meanwhile, it does to both.
#![allow(dead_code, reason = "each benchmark uses its own part")]
#![allow(unreachable_pub, reason = "a module of several benchmarks")]

use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput,
    measurement::{Measurement, ValueFormatter},
};
use std::{
    hint::black_box,
    mem,
    time::{Duration, Instant},
};

/// Measures the time of one side divided by the time of the other. `time` is this ratio, `thrpt` that of the rates.
pub struct Ratio;

impl Measurement for Ratio {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    /// [`compare`] alone knows a ratio.
    fn end(&self, (): ()) -> f64 {
        f64::NAN
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Ratio {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "x"
    }

    fn scale_throughputs(&self, _typical: f64, _throughput: &Throughput, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value = value.recip());
        "x"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "x"
    }
}

/// What a side took for a number of operations, and what else it tells of them.
pub type Took<T> = (Duration, T);

/// Each side does the same number of operations a turn, and neither always begins. Hands back the turns that were measured, none
/// where the command line leaves this comparison out.
pub fn compare<T>(
    group: &mut BenchmarkGroup<'_, Ratio>,
    name: &str,
    mut one: impl FnMut(u64) -> Took<T>,
    mut other: impl FnMut(u64) -> Took<T>,
) -> Vec<[Took<T>; 2]> {
    let (mut size, mut turns) = (0, Vec::new());
    group.sampling_mode(SamplingMode::Flat).bench_function(name, |bencher| {
        bencher.iter_custom(|iters| {
            // Turns of another size were to warm up.
            if mem::replace(&mut size, iters) != iters {
                turns.clear();
            }
            let turn = if turns.len() % 2 == 0 {
                [one(iters), other(iters)]
            } else {
                let other = other(iters);
                [one(iters), other]
            };
            let measured = ratio(&turn) * iters as f64;
            turns.push(turn);
            measured
        });
    });
    turns
}

/// The time of the one beside the time of the other.
pub fn ratio<T>([one, other]: &[Took<T>; 2]) -> f64 {
    one.0.as_secs_f64() / other.0.as_secs_f64()
}

/// The time of one call of each side, then of the first beside the second in turns.
pub fn time_both<A, B>(
    (times, ratios): (&mut Criterion, &mut Criterion<Ratio>),
    what: &str,
    (one_name, mut one): (&str, impl FnMut() -> A),
    (other_name, mut other): (&str, impl FnMut() -> B),
) {
    let mut group = times.benchmark_group(what);
    group.bench_function(one_name, |bencher| bencher.iter(&mut one));
    group.bench_function(other_name, |bencher| bencher.iter(&mut other));
    group.finish();
    let name = format!("{one_name} beside {other_name}");
    compare(&mut ratios.benchmark_group(what), &name, |iters| time(iters, &mut one), |iters| time(iters, &mut other));
}

fn time<T>(iters: u64, run: &mut impl FnMut() -> T) -> Took<()> {
    let begun = Instant::now();
    for _ in 0..iters {
        black_box(run());
    }
    (begun.elapsed(), ())
}
