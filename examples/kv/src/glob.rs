//! Patterns of keys, as in Redis: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a character that stands for itself.

/// Returns whether `text` matches `pattern`. Takes time in proportion to the product of their lengths at most.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut text) = (pattern, text);
    // What follows the last star, and the text that is left for it.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            rest = after;
            retry = Some((after, text));
            continue;
        }
        let (first, tail) = match text {
            [first, tail @ ..] => (*first, tail),
            [] => return rest.is_empty(),
        };
        if let Some(after) = one(rest, first) {
            (rest, text) = (after, tail);
        } else if let Some((after, [_, left @ ..])) = retry {
            // The star takes one byte more.
            (rest, text) = (after, left);
            retry = Some((after, left));
        } else {
            return false;
        }
    }
}

/// Matches one byte. Returns the rest of the pattern, or `None` if the byte does not match.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'\\', escaped, rest @ ..] => (*escaped == byte).then_some(rest),
        [b'[', set @ ..] => class(set, byte),
        [first, rest @ ..] => (*first == byte).then_some(rest),
    }
}

/// Matches one byte with a set, given what follows its bracket. A set that is not closed ends with the pattern.
fn class(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    loop {
        set = match set {
            [] | [b']', ..] => break,
            [b'\\', escaped, rest @ ..] => {
                found |= *escaped == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [member, rest @ ..] => {
                found |= *member == byte;
                rest
            }
        };
    }
    (found != negated).then_some(set.get(1..).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases = [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("user:[0-9]*", "user:7:name", true),
            ("user:[^0-9]", "user:7", false),
            ("[a-cx]", "x", true),
            ("[c-a]", "b", true),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[ab", "b", true),
            ("a\\", "a\\", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} and {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches("*a".repeat(1000).as_bytes(), "a".repeat(999).as_bytes()));
        assert!(matches("*a".repeat(1000).as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
