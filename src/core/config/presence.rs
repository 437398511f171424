//! Whether a text is a plain selector. Of one, `timestamp()` is when its samples are from; of
//! anything else it is when Prometheus was asked, and all looks fresh.

/// Whether this is a name with or without matchers, or matchers alone, be it of an `offset`
/// ago, and nothing else. What Prometheus alone can tell, such as an unknown escape, it tells
/// when it is asked.
pub(super) fn is_selector(text: &str) -> bool {
    let rest = skip(text);
    let after_name = name(rest, true);
    let rest = skip(after_name.unwrap_or(rest));
    let after_matchers = matchers(rest);
    if after_name.is_none() && after_matchers.is_none_or(|(_, any)| !any) {
        return false;
    }
    let rest = after_matchers.map_or(rest, |(rest, _)| rest);
    offset(skip(rest)).is_some_and(|rest| skip(rest).is_empty())
}

/// What follows white space and comments.
fn skip(text: &str) -> &str {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r']);
    match text.strip_prefix('#') {
        Some(comment) => comment.split_once('\n').map_or("", |(_, rest)| skip(rest)),
        None => text,
    }
}

/// What follows the name of a metric, or of a label.
fn name(text: &str, metric: bool) -> Option<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || (metric && c == ':');
    let rest = text.trim_start_matches(part);
    let starts = text.starts_with(|c: char| part(c) && !c.is_ascii_digit());
    starts.then_some(rest)
}

/// What follows matchers in braces, and whether there were any.
fn matchers(text: &str) -> Option<(&str, bool)> {
    let mut rest = skip(text.strip_prefix('{')?);
    let mut any = false;
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((rest, any));
        }
        rest = skip(matcher(rest)?);
        any = true;
        match rest.strip_prefix(',') {
            Some(next) => rest = skip(next),
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// What follows one matcher. A text alone is a metric's name.
fn matcher(text: &str) -> Option<&str> {
    let quoted = quoted(text);
    let label = quoted.or_else(|| name(text, false))?;
    let operators = ["=~", "!=", "!~", "="];
    let mut operators = operators.iter();
    match operators.find_map(|operator| skip(label).strip_prefix(operator)) {
        Some(value) => self::quoted(skip(value)),
        None => quoted,
    }
}

/// What follows a text in quotes.
fn quoted(text: &str) -> Option<&str> {
    let quote = text
        .chars()
        .next()
        .filter(|c| ['"', '\'', '`'].contains(c))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if quote == '`' && c != quote => {}
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// What follows an `offset` into the past, if there is one.
fn offset(text: &str) -> Option<&str> {
    let Some((word, rest)) = text.split_at_checked("offset".len()) else {
        return Some(text);
    };
    if !word.eq_ignore_ascii_case("offset") {
        return Some(text);
    }
    let mut rest = skip(rest);
    let mut any = false;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let units = ["ms", "s", "m", "h", "d", "w", "y"];
        rest = units.iter().find_map(|unit| rest.strip_prefix(unit))?;
        any = true;
    }
    any.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h16_only_plain_selectors_say_when_their_samples_are_from() {
        for text in [
            "up",
            "  up\n",
            "node:load:1m",
            "up{}",
            r#"up{job="node-exporter"}"#,
            r#"up { job = "a" , env != 'b', zone=~"a|b", x!~`c\` , } # why"#,
            r#"{__name__="up"}"#,
            r#"{"node.up", "k8s.node" = "a"}"#,
            r#"up{a="}"}"#,
            r#"up{a="\"}, b", c='\'', d=`"`}"#,
            "# the exporter\nup # still\n",
            "up{# a comment }\njob='a'}",
            "up{a=`\n`}",
            "up offset 1m",
            "up OFFSET 1m30s",
            r#"up{a="b"}offset 100ms # it needs two"#,
            "offset offset 5m",
        ] {
            assert!(is_selector(text), "{text}");
        }
        for text in [
            "",
            " # up",
            "{}",
            "{ }",
            "1",
            "'up'",
            "5xx",
            "up == 1",
            r#"up{job="node-exporter"} == 1"#,
            "up > bool 0",
            "-up",
            "(up)",
            "up[5m]",
            "last_over_time(up[15m])",
            "max by (instance) (up)",
            "sum(up)",
            "up or down",
            "up{a='b'} up",
            "up{a='b'}{c='d'}",
            "up @ 1000",
            "up @ end()",
            "up offset",
            "up offset -5m",
            "up offset 5",
            "up offset 1m offset 1m",
            "up offset 1m == 1",
            "up offset 1mx",
            "up{",
            "up{a}",
            "up{a=}",
            "up{a=b}",
            "up{a='b' c='d'}",
            "up{,}",
            "up{a='b',,}",
            "up{a:b='c'}",
            r#"up{a="b}"#,
            r#"up{a="b\"}"#,
            "up{a='b\n'}",
            "up{a=`b}",
            "up # {\n== 1",
            "up \u{a0}",
            "ü",
        ] {
            assert!(!is_selector(text), "{text}");
        }
    }
}
