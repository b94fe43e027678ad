//! Built-in functions that are taken away or bounded. An extension of the same name hides the evaluator's own function.

use anyhow::{Result, anyhow};
use regorus::{Engine, Value};

use super::limits;

/// Takes randomness away and bounds the functions that turn a small number into much memory.
pub(super) fn restrict(engine: &mut Engine) -> Result<()> {
    engine.add_extension("rand.intn".to_owned(), 2, Box::new(|_: Vec<Value>| no_randomness()))?;
    engine.add_extension("numbers.range".to_owned(), 2, Box::new(|args: Vec<Value>| range(&args)))?;
    engine.add_extension("numbers.range_step".to_owned(), 3, Box::new(|args: Vec<Value>| range(&args)))?;
    engine.add_extension("bits.lsh".to_owned(), 2, Box::new(|args: Vec<Value>| shift_left(&args)))
}

fn no_randomness() -> Result<Value> {
    Err(anyhow!("`rand.intn` is not offered: the same call must get the same answer"))
}

/// From the first to the second argument, both included, up or down, by the third (or 1).
fn range(args: &[Value]) -> Result<Value> {
    let (from, to, step) = match args {
        [from, to] => (from.as_i64(), to.as_i64(), Ok(1)),
        [from, to, step] => (from.as_i64(), to.as_i64(), step.as_i64()),
        _ => return Ok(Value::Undefined),
    };
    let (Ok(from), Ok(to), Ok(step @ 1..)) = (from, to, step) else {
        return Ok(Value::Undefined);
    };
    let max = limits::RANGE_ELEMENTS;
    match from.checked_sub(to).and_then(i64::checked_abs) {
        Some(distance) if distance / step < max => {}
        Some(_) | None => return Err(anyhow!("`numbers.range` would make more than {max} elements: narrow the range")),
    }
    let mut elements = Vec::new();
    let mut next = Some(from);
    while let Some(element) = next.filter(|&n| if from <= to { n <= to } else { n >= to }) {
        elements.push(Value::from(element));
        next = element.checked_add(if from <= to { step } else { -step });
    }
    Ok(Value::from(elements))
}

fn shift_left(args: &[Value]) -> Result<Value> {
    let [value, by] = args else { return Ok(Value::Undefined) };
    let (Ok(value), Ok(by @ 0..)) = (value.as_i64(), by.as_i64()) else { return Ok(Value::Undefined) };
    let shifted =
        u32::try_from(by).ok().and_then(|by| 1_i128.checked_shl(by)).and_then(|f| f.checked_mul(value.into()));
    match shifted {
        Some(shifted) if by < limits::SHIFT_BITS => Ok(Value::from(shifted)),
        Some(_) | None => Err(anyhow!("`bits.lsh` by `{by}` needs more than 127 bits: shift by less")),
    }
}
