//! Just enough XML to read moto's answers: elements and text.

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// Reads a document; what is no element is skipped, and a cut one gives what is there.
    pub fn parse(text: &str) -> Self {
        let mut open = vec![Self::default()];
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            let (before, tag) = rest.split_at(start);
            if let Some(element) = open.last_mut() {
                element.text.push_str(&unescape(before));
            }
            let Some(end) = tag.find('>') else { break };
            let inside = &tag[1..end];
            rest = &tag[end + 1..];
            if inside.starts_with(['?', '!']) {
                continue;
            }
            if inside.starts_with('/') {
                close(&mut open);
                continue;
            }
            let name = inside
                .trim_end_matches('/')
                .split_whitespace()
                .next()
                .unwrap_or_default();
            open.push(Self {
                name: name.to_owned(),
                ..Self::default()
            });
            if inside.ends_with('/') {
                close(&mut open);
            }
        }
        while open.len() > 1 {
            close(&mut open);
        }
        open.pop().unwrap_or_default()
    }

    /// The first child with this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text at the end of a path of names; empty if there is none.
    pub fn at(&self, path: &[&str]) -> &str {
        path.iter()
            .try_fold(self, |element, name| element.child(name))
            .map_or("", |found| found.text.trim())
    }

    /// The `item` elements in the child with this name.
    pub fn items(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.child(name)
            .into_iter()
            .flat_map(|list| list.children.iter().filter(|child| child.name == "item"))
    }

    /// The document's root.
    pub fn root(&self) -> Option<&Self> {
        self.children.first()
    }
}

fn close(open: &mut Vec<Element>) {
    // The outermost is the document itself, which no tag closes.
    if open.len() > 1
        && let Some(done) = open.pop()
        && let Some(parent) = open.last_mut()
    {
        parent.children.push(done);
    }
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::Element;

    #[test]
    fn nested_items_are_found() {
        let document = Element::parse(
            "<?xml version=\"1.0\"?>\n<R xmlns=\"x\"><set><item><a>1 &amp; 2</a><empty/></item><item><a>3</a></item></set></R>",
        );
        let root = document.root().unwrap();
        let values: Vec<&str> = root.items("set").map(|item| item.at(&["a"])).collect();
        assert_eq!(values, ["1 & 2", "3"]);
        assert_eq!(root.at(&["set", "none"]), "");
    }
}
