package conformance

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed testdata/*.txt
var embedded embed.FS

// Case is one case of the suite.
type Case struct {
	File    string // without its extension
	Line    int    // of its title
	Name    string
	Section string // of the specification
	Rule    string // in words
	Needs   []Need
	steps   []step
}

// Need is what a device must have for a case: at least Min of something.
type Need struct {
	What string
	Min  uint64
}

// step is one line of a case.
type step struct {
	pos    string // file:line, for people
	conn   string // the connection it is about
	verb   string
	args   []string
	quoted []bool // which args were quoted, so are text
}

// Load returns the cases of the suite in the order of the files.
func Load() ([]Case, error) {
	sub, err := fs.Sub(embedded, "testdata")
	if err != nil {
		return nil, err
	}
	return LoadFS(sub)
}

// LoadFS parses the cases in all *.txt of a folder. Names are unique within a file.
func LoadFS(fsys fs.FS) ([]Case, error) {
	names, err := fs.Glob(fsys, "*.txt")
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		cases, err := parse(path.Base(name), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, cases...)
	}
	return all, nil
}

// line is a line of a file with its continuations.
type line struct {
	number int
	text   string
}

// parse cuts a file into cases.
func parse(file, text string) ([]Case, error) {
	lines, err := joined(file, text)
	if err != nil {
		return nil, err
	}
	var cases []Case
	for len(lines) > 0 {
		end := 1
		for end < len(lines) && !strings.HasPrefix(lines[end].text, "== ") {
			end++
		}
		block, err := parseBlock(file, lines[:end])
		if err != nil {
			return nil, err
		}
		cases = append(cases, block...)
		lines = lines[end:]
	}
	seen := map[string]int{}
	for _, c := range cases {
		if first, ok := seen[c.Name]; ok {
			return nil, fmt.Errorf("%s:%d: case %q is in line %d already", file, c.Line, c.Name, first)
		}
		seen[c.Name] = c.Line
	}
	return cases, nil
}

// joined removes blank lines and comments; an indented line continues the last one.
func joined(file, text string) ([]line, error) {
	var lines []line
	number := 0
	for raw := range strings.Lines(text) {
		number++
		s := strings.TrimRight(raw, "\n")
		switch trimmed := strings.TrimSpace(s); {
		case strings.ContainsAny(s, "\t\r") || s != strings.TrimRight(s, " "):
			return nil, fmt.Errorf("%s:%d: tab, or blank at the end", file, number)
		case trimmed == "" || s[0] == '#':
		case s[0] == ' ' && len(lines) == 0:
			return nil, fmt.Errorf("%s:%d: continues nothing", file, number)
		case s[0] == ' ':
			lines[len(lines)-1].text += " " + trimmed
		case len(lines) == 0 && !strings.HasPrefix(s, "== "):
			return nil, fmt.Errorf("%s:%d: a file begins with a case", file, number)
		default:
			lines = append(lines, line{number, s})
		}
	}
	return lines, nil
}

// parseBlock reads a case, or the cases that its table makes of it.
func parseBlock(file string, lines []line) ([]Case, error) {
	title, lines := lines[0], lines[1:]
	fail := func(l line, format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", file, l.number, fmt.Sprintf(format, args...))
	}
	var columns []string
	var rows []line
	var body []line
	for _, l := range lines {
		word, rest, _ := strings.Cut(l.text, " ")
		switch {
		case word == "columns" && columns == nil && len(body) == 0:
			columns = cells(rest)
		case word == "|" && columns != nil && len(body) == 0:
			rows = append(rows, line{l.number, rest})
		case word == "columns" || word == "|":
			return nil, fail(l, "a table stands before the rule, once, and begins with columns")
		default:
			body = append(body, l)
		}
	}
	if columns == nil {
		c, err := parseCase(file, title, body, strings.NewReplacer())
		return []Case{c}, err
	}
	if len(rows) == 0 {
		return nil, fail(title, "a table without rows")
	}
	var cases []Case
	for _, row := range rows {
		values := cells(row.text)
		if len(values) != len(columns) {
			return nil, fail(row, "%d cells in %d columns", len(values), len(columns))
		}
		var pairs []string
		for i, name := range columns {
			pairs = append(pairs, "{"+name+"}", values[i])
		}
		c, err := parseCase(file, line{row.number, title.text}, body, strings.NewReplacer(pairs...))
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// cells cuts a row of a table at " | ": flags have no blanks around theirs.
func cells(s string) []string {
	for strings.Contains(s, " | |") { // an empty cell
		s = strings.ReplaceAll(s, " | |", " |  |")
	}
	parts := strings.Split(s+" ", " | ")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// parseCase reads one case; names in braces become what their row says.
func parseCase(file string, title line, body []line, row *strings.Replacer) (Case, error) {
	c := Case{
		File: strings.TrimSuffix(file, path.Ext(file)), Line: title.number,
		Name: row.Replace(strings.TrimPrefix(title.text, "== ")),
	}
	for _, l := range body {
		pos := fmt.Sprintf("%s:%d", file, l.number)
		if err := c.add(pos, row.Replace(l.text)); err != nil {
			return c, fmt.Errorf("%s: %w", pos, err)
		}
	}
	pos := fmt.Sprintf("%s:%d: case %q", file, c.Line, c.Name)
	switch {
	case c.Rule == "":
		return c, fmt.Errorf("%s has no rule", pos)
	case len(c.steps) == 0:
		return c, fmt.Errorf("%s has no steps", pos)
	case !slices.ContainsFunc(c.steps, step.checks):
		return c, fmt.Errorf("%s checks nothing", pos)
	}
	return c, nil
}

// add takes one line of a case.
func (c *Case) add(pos, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "rule":
		section, rule, ok := strings.Cut(rest, ": ")
		switch {
		case !ok || rule == "":
			return fmt.Errorf("a rule is a section, a colon and words")
		case c.Rule != "":
			return fmt.Errorf("a second rule")
		case !slices.Contains(sections, section):
			return fmt.Errorf("the specification has no section %q", section)
		}
		c.Section, c.Rule = section, rule
		return nil
	case "needs":
		for item := range strings.SplitSeq(rest, ",") {
			need, err := parseNeed(strings.Fields(item))
			if err != nil {
				return err
			}
			c.Needs = append(c.Needs, need)
		}
		return nil
	}
	s, err := parseStep(text)
	s.pos = pos
	c.steps = append(c.steps, s)
	return err
}

func parseNeed(words []string) (Need, error) {
	n := Need{Min: 1}
	if len(words) == 0 || len(words) > 2 || !known(words[0]) {
		return n, fmt.Errorf("needs %q is none of what a device can have: %s", strings.Join(words, " "), strings.Join(Facts(), ", "))
	}
	n.What = words[0]
	if len(words) == 1 {
		return n, nil
	}
	v, err := number(words[1])
	n.Min = v
	return n, err
}

// parseStep reads a step. "on NAME:" before it names the connection.
func parseStep(text string) (step, error) {
	var s step
	if rest, ok := strings.CutPrefix(text, "on "); ok {
		s.conn, text, ok = strings.Cut(rest, ": ")
		if !ok {
			return s, fmt.Errorf("on NAME lacks its colon")
		}
	}
	words, quoted, err := split(text)
	if err != nil {
		return s, err
	}
	s.verb, s.args, s.quoted = words[0], words[1:], quoted[1:]
	if _, ok := verbs[s.verb]; !ok {
		return s, fmt.Errorf("unknown step %q", s.verb)
	}
	return s, nil
}

// split cuts a line into words. What stands between single quotes is part of a word
// with its blanks.
func split(text string) (words []string, quoted []bool, err error) {
	var word strings.Builder
	inside, had, any := false, false, false
	flush := func() {
		if any {
			words, quoted = append(words, word.String()), append(quoted, had)
		}
		word.Reset()
		had, any = false, false
	}
	for _, r := range text {
		switch {
		case r == '\'':
			inside, had, any = !inside, true, true
		case r == ' ' && !inside:
			flush()
		default:
			word.WriteRune(r)
			any = true
		}
	}
	flush()
	if inside {
		return nil, nil, fmt.Errorf("a quote does not end")
	}
	return words, quoted, nil
}
