//! The body of an answer to an instant query: nothing but a complete vector of finite
//! numbers is one.

use std::collections::BTreeMap;

use nodemend::prometheus::{Sample, decode};
use serde_json::Value;

/// So few that inputs reach it.
const MOST: usize = 3;
/// The most labels of a series.
const MAX_LABELS: usize = 256;

pub fn target(input: &[u8]) {
    let found = decode(input, MOST);
    assert_eq!(found, decode(input, MOST));
    if let Ok(samples) = &found {
        assert!(samples.len() <= MOST);
        assert!(
            samples
                .iter()
                .all(|one| one.at.is_finite() && one.value.is_finite())
        );
    }
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    if found.is_ok() {
        assert_eq!(found.ok(), vector(&value));
    }
    // Of a name that an object has twice `Value` keeps the last, and `decode` refuses it:
    // the other way round holds for what was written from a `Value`.
    let written = value.to_string();
    let again: Value = serde_json::from_str(&written).unwrap();
    let naive = vector(&again).filter(|samples| samples.len() <= MOST);
    assert_eq!(decode(written.as_bytes(), MOST).ok(), naive, "{written}");
}

/// The vector that an answer without errors and warnings holds.
fn vector(answer: &Value) -> Option<Vec<Sample>> {
    let answer = answer.as_object()?;
    let text = |name: &str, or: &str| match answer.get(name) {
        None => Some(or.to_owned()),
        Some(value) => value.as_str().map(str::to_owned),
    };
    text("error", "")?;
    let warnings = match answer.get("warnings") {
        None => 0,
        Some(value) => value.as_array()?.len(),
    };
    if text("status", "")? != "success" || warnings > 0 {
        return None;
    }
    let data = answer.get("data")?.as_object()?;
    if data.get("resultType")? != "vector" {
        return None;
    }
    let samples = data.get("result")?.as_array()?.iter();
    samples.map(sample).collect()
}

fn sample(series: &Value) -> Option<Sample> {
    let series = series.as_object()?;
    let labels = series.get("metric")?.as_object()?.iter();
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let [at, value] = series.get("value")?.as_array()?.as_slice() else {
        return None;
    };
    let value: f64 = value.as_str()?.parse().ok()?;
    Some(Sample {
        labels: labels
            .collect::<Option<BTreeMap<_, _>>>()
            .filter(|labels| labels.len() <= MAX_LABELS)?,
        at: at.as_f64()?,
        value: Some(value).filter(|value| value.is_finite())?,
    })
}
