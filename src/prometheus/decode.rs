//! The decoding of query answers: anything but a complete instant vector of finite
//! numbers is an error. Of an answer of many megabytes no more is built than may be used.

use std::fmt;

use nodemend_core::evidence::identity::Labels;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::Error;
use crate::fetch::quote;

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Labels,
    /// When the server evaluated it, in seconds since 1970, finite.
    pub at: f64,
    /// Its value, finite.
    pub value: f64,
}

/// No fleet has more series.
const MOST: usize = 2_000_000;
/// No series has more labels, even one that has all labels of a node.
const MAX_LABELS: usize = 256;
/// As many warnings as a message repeats.
const MAX_WARNINGS: usize = 10;

/// Reads the body of an answer to an instant query, with at most `max_series` series.
pub fn decode(body: &[u8], max_series: usize) -> Result<Vec<Sample>, Error> {
    let most = max_series.min(MOST);
    let answer = read_answer(body, most)?;
    if answer.status != "success" {
        return Err(Error::Refused(quote(&answer.error)));
    }
    if answer.warnings.count > 0 {
        return Err(Error::Warnings(quote(&answer.warnings.first.join("; "))));
    }
    if answer.partial {
        return Err(Error::Warnings("isPartial: some data are missing".into()));
    }
    let data = answer.data.ok_or_else(|| Error::Shape("no data".into()))?;
    if data.result_type != "vector" {
        return Err(Error::Type(quote(&data.result_type)));
    }
    let List {
        samples,
        more,
        others,
    } = data.result;
    if others > 0 {
        return Err(Error::Shape("a series is no object".into()));
    }
    if more > 0 {
        return Err(Error::TooMany(samples.len() + more, most));
    }
    samples.into_iter().map(read).collect()
}

fn read_answer(body: &[u8], most: usize) -> Result<Answer, Error> {
    let shape = |error: serde_json::Error| Error::Shape(quote(&error.to_string()));
    let mut from = serde_json::Deserializer::from_slice(body);
    let answer = AnswerSeed(most).deserialize(&mut from).map_err(shape)?;
    from.end().map_err(shape)?;
    Ok(answer)
}

/// What Prometheus says in a body that does not come with status 200.
pub(super) fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Excuse>(body) {
        Ok(excuse) => quote(&excuse.error),
        Err(_) => "not in the words of Prometheus".into(),
    }
}

/// What Prometheus says where it refuses.
#[derive(Deserialize)]
struct Excuse {
    #[serde(default)]
    error: String,
}

/// Only an object will do: serde's own way takes a list of the fields in their order too.
struct Answer {
    status: String,
    error: String,
    warnings: Warnings,
    /// By `VictoriaMetrics`: a part of its storage did not answer.
    partial: bool,
    data: Option<Data>,
}

/// With at most so many series.
struct AnswerSeed(usize);

impl<'de> DeserializeSeed<'de> for AnswerSeed {
    type Value = Answer;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Answer, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AnswerSeed {
    type Value = Answer;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer, A::Error> {
        let (mut status, mut error, mut warnings) = (None, None, None);
        let (mut partial, mut data) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "status" => once(&mut status, "status", map.next_value()?)?,
                "error" => once(&mut error, "error", map.next_value()?)?,
                "warnings" => once(&mut warnings, "warnings", map.next_value()?)?,
                "isPartial" => once(&mut partial, "isPartial", map.next_value()?)?,
                "data" => once(&mut data, "data", map.next_value_seed(DataSeed(self.0))?)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Answer {
            status: status.ok_or_else(|| A::Error::missing_field("status"))?,
            error: error.unwrap_or_default(),
            warnings: warnings.unwrap_or_default(),
            partial: partial.unwrap_or_default(),
            data: data.flatten(),
        })
    }
}

fn once<T, E: serde::de::Error>(
    place: &mut Option<T>,
    name: &'static str,
    value: T,
) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

struct Data {
    result_type: String,
    result: List,
}

struct DataSeed(usize);

impl<'de> DeserializeSeed<'de> for DataSeed {
    type Value = Option<Data>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed {
    type Value = Option<Data>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut result_type, mut result) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "resultType" => once(&mut result_type, "resultType", map.next_value()?)?,
                "result" => once(
                    &mut result,
                    "result",
                    map.next_value_seed(ListSeed(self.0))?,
                )?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(Data {
            result_type: result_type.ok_or_else(|| A::Error::missing_field("resultType"))?,
            result: result.ok_or_else(|| A::Error::missing_field("result"))?,
        }))
    }
}

/// A result of any type, read as it comes.
#[derive(Default)]
struct List {
    samples: Vec<RawSample>,
    /// How many there are beyond the most, which are not built.
    more: usize,
    /// What is no object.
    others: usize,
}

struct ListSeed(usize);

impl<'de> DeserializeSeed<'de> for ListSeed {
    type Value = List;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<List, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListSeed {
    type Value = List;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while list.samples.len() < self.0 {
            match seq.next_element()? {
                Some(Element::Series(sample)) => list.samples.push(sample),
                Some(Element::Other) => list.others += 1,
                None => return Ok(list),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.more += 1;
        }
        Ok(list)
    }
}

/// The first of some texts; the others are only counted.
#[derive(Default)]
struct Warnings {
    first: Vec<String>,
    count: usize,
}

impl<'de> Deserialize<'de> for Warnings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Warnings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Warnings, A::Error> {
                let mut warnings = Warnings::default();
                while let Some(text) = seq.next_element::<String>()? {
                    warnings.count += 1;
                    if warnings.first.len() < MAX_WARNINGS {
                        warnings.first.push(text);
                    }
                }
                Ok(warnings)
            }
        }
        from.deserialize_seq(Texts)
    }
}

#[derive(Deserialize)]
struct RawSample {
    #[serde(deserialize_with = "labels")]
    metric: Labels,
    value: Option<(f64, String)>,
}

/// As serde reads a map, but for the number of labels.
fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Labels;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("labels")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
            let mut labels = Labels::new();
            while let Some((name, value)) = map.next_entry()? {
                labels.insert(name, value);
                if labels.len() > MAX_LABELS {
                    let message = format!("a series of more than {MAX_LABELS} labels");
                    return Err(A::Error::custom(message));
                }
            }
            Ok(labels)
        }
    }
    from.deserialize_map(Pairs)
}

enum Element {
    Series(RawSample),
    /// A part of a scalar or a string.
    Other,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a series, a number or a text")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                RawSample::deserialize(MapAccessDeserializer::new(map)).map(Element::Series)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Other)
            }
        }
        from.deserialize_any(Any)
    }
}

fn read(sample: RawSample) -> Result<Sample, Error> {
    let (at, text) = sample
        .value
        .ok_or_else(|| Error::Type("histogram".into()))?;
    let value = text.parse().ok().filter(|value: &f64| value.is_finite());
    Ok(Sample {
        labels: sample.metric,
        at,
        value: value.ok_or_else(|| Error::Value(quote(&text)))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: &Result<usize, &str>) {
        let found = decode(body.as_bytes(), 2)
            .map(|samples| samples.len())
            .map_err(|error| error.to_string());
        match (expect, &found) {
            (Ok(count), Ok(read)) => assert_eq!(count, read, "{body}"),
            (Err(part), Err(message)) if message.contains(part) => {}
            _ => panic!("{body}: {found:?}, not {expect:?}"),
        }
    }

    #[test]
    fn h18_anything_but_a_vector_of_finite_numbers_is_an_error() {
        let vector = |samples: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            )
        };
        let sample = r#"{"metric":{"node":"a"},"value":[1,"2"]}"#;
        check(&vector(""), &Ok(0));
        check(&vector(sample), &Ok(1));
        check(&vector(&[sample; 3].join(",")), &Err("3 series"));
        check(&vector(r#"{"metric":{},"value":[1,"NaN"]}"#), &Err("NaN"));
        check(&vector(r#"{"metric":{},"value":[1,"+Inf"]}"#), &Err("+Inf"));
        check(
            &vector(r#"{"metric":{},"histogram":[1,{}]}"#),
            &Err("histogram"),
        );
        check(
            &vector(r#"{"metric":{},"value":[1,2]}"#),
            &Err("not an answer"),
        );
        check(
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#,
            &Err("scalar"),
        );
        check(
            r#"{"status":"error","error":"bad","errorType":"x"}"#,
            &Err("refused: bad"),
        );
        check(r#"{"status":"success"}"#, &Err("no data"));
        let other = |kind: &str, result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
        };
        check(&other("string", r#"[1,"x"]"#), &Err("string"));
        let range = r#"[{"metric":{},"values":[[1,"2"],[2,"2"]]}]"#;
        check(&other("matrix", range), &Err("matrix"));
        for result in [
            "[1]", r#"["x"]"#, "[[]]", "[null]", "{}", "null", "7", "[{}]",
        ] {
            check(&other("vector", result), &Err("not an answer"));
        }
        // The type may come last.
        let last = format!(
            r#"{{"status":"success","data":{{"result":[{sample}],"resultType":"vector"}}}}"#
        );
        check(&last, &Ok(1));
        // Lists in place of objects.
        for text in [
            r#"["success","",[],{"resultType":"vector","result":[]}]"#,
            r#"{"status":"success","data":["vector",[]]}"#,
        ] {
            check(text, &Err("not an answer"));
        }
        check(&vector(r#"[{"node":"a"},[1,"2"]]"#), &Err("not an answer"));
    }

    #[test]
    fn h20_no_series_is_built_beyond_the_most_that_is_taken() {
        let sample = r#"{"metric":{"node":"a"},"value":[1,"2"]}"#;
        let body = |count: usize, beyond: &str| {
            let all = [vec![sample; count], vec![beyond]].concat().join(",");
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{all}]}}}}"#)
        };
        let list = |body: &str| {
            let answer = read_answer(body.as_bytes(), 2).unwrap();
            answer.data.unwrap().result
        };
        let found = list(&body(1000, sample));
        assert_eq!((found.samples.len(), found.more), (2, 999));
        // What is not built is not even looked at.
        let found = list(&body(2, r#"{"metric":{"node":7},"value":[]}"#));
        assert_eq!((found.samples.len(), found.more), (2, 1));
        check(&body(1000, sample), &Err("1001 series, more than 2"));
        check(&body(1, sample), &Ok(2));
    }

    #[test]
    fn h20_a_series_has_so_many_labels_and_a_message_so_many_warnings() {
        let labelled = |count: usize| -> String {
            let labels: Vec<String> = (0..count).map(|at| format!(r#""l{at}":"x""#)).collect();
            let labels = labels.join(",");
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{{labels}}},"value":[1,"2"]}}]}}}}"#
            )
        };
        check(&labelled(MAX_LABELS), &Ok(1));
        check(&labelled(MAX_LABELS + 1), &Err("more than 256 labels"));
        let warnings = vec![r#""w""#; 1000].join(",");
        let body = format!(r#"{{"status":"success","warnings":[{warnings}]}}"#);
        let kept = read_answer(body.as_bytes(), 2).unwrap().warnings;
        assert_eq!((kept.first.len(), kept.count), (MAX_WARNINGS, 1000));
    }

    #[test]
    fn h22_what_a_message_repeats_is_cut() {
        let long = "x".repeat(1000);
        let vector = |value: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
            )
        };
        for body in [
            format!(r#"{{"status":"{long}","error":"{long}"}}"#),
            format!(r#"{{"status":"success","warnings":["{long}"]}}"#),
            format!(r#"{{"status":"success","data":{{"resultType":"{long}","result":[]}}}}"#),
            format!(r#"{{"status":"success","data":"{long}"}}"#),
            format!(r#"{{"status":"success","warnings":"{long}"}}"#),
            vector(&long),
            vector(&"9".repeat(1000)),
        ] {
            let message = decode(body.as_bytes(), 2).unwrap_err().to_string();
            assert!(message.len() < 300, "{message}");
        }
        assert!(refusal(format!(r#"{{"error":"{long}"}}"#).as_bytes()).len() <= 200);
    }

    #[test]
    fn h15_an_answer_with_warnings_is_an_error() {
        check(
            r#"{"status":"success","warnings":["w"],"data":{"resultType":"vector","result":[]}}"#,
            &Err("warnings: w"),
        );
        check(
            r#"{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}"#,
            &Err("warnings: isPartial: some data are missing"),
        );
    }

    #[test]
    fn h22_a_page_of_a_proxy_is_an_error() {
        check("<html></html>", &Err("not an answer"));
        check("", &Err("not an answer"));
    }
}
