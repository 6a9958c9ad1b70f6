package conformance

import (
	"strings"
	"testing"
	"testing/fstest"
)

const goodCase = "== a case\nrule Header: ids are echoed\nattach\nsend GET_INFO\nreply argsz=16\n"

func TestErrorsInCasesAreFound(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no title", "attach\n", "x.txt:1: a file begins with a case"},
		{"continues nothing", "  attach\n", "x.txt:1: continues nothing"},
		{"tab", "== a\n\tattach\n", "x.txt:2: tab"},
		{"blank at the end", "== a\nattach \n", "x.txt:2: tab, or blank"},
		{"no rule", "== a\nattach\nsend RESET\nreply\n", `x.txt:1: case "a" has no rule`},
		{"no steps", "== a\nrule Header: x\n", `has no steps`},
		{"checks nothing", "== a\nrule Header: x\nattach\n", `checks nothing`},
		{"two rules", "== a\nrule Header: x\nrule Header: y\nattach\n", "x.txt:3: a second rule"},
		{"rule without words", "== a\nrule Header\nattach\n", "x.txt:2: a rule is"},
		{"section that is not there", "== a\nrule Headers: x\nattach\n", `x.txt:2: the specification has no section "Headers"`},
		{"step that is not there", "== a\nrule Header: x\ndance\n", `x.txt:3: unknown step "dance"`},
		{"need that is not there", "== a\nneeds luck\n", `x.txt:2: needs "luck"`},
		{"need with two numbers", "== a\nneeds msix 1 2\n", `x.txt:2: needs "msix 1 2"`},
		{"on without colon", "== a\nrule Header: x\non d attach\n", "x.txt:3: on NAME lacks its colon"},
		{"open quote", "== a\nrule Header: x\nsend VERSION text:'x\n", "x.txt:3: a quote does not end"},
		{"same name", goodCase + goodCase, `x.txt:6: case "a case" is in line 1 already`},
		{"cells", "== a {b}\ncolumns b | c\n| 1\n", "x.txt:3: 1 cells in 2 columns"},
		{"table without rows", "== a {b}\ncolumns b\nrule Header: x\nattach\n", "x.txt:1: a table without rows"},
		{"table behind the rule", "== a {b}\nrule Header: x\ncolumns b\n| 1\n", "x.txt:3: a table stands before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadFS(fstest.MapFS{"x.txt": {Data: []byte(c.text)}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTablesMakeCases(t *testing.T) {
	text := "== {a} of {b}\ncolumns a | b\n| 1 | x y\n# a comment\n| 2 |\nrule Header: number {a}\nneeds msix {a}\nattach\n" +
		"send GET_INFO\n  h.id={a}\nreply argsz=16\n"
	cases, err := parse("t.txt", text)
	if err != nil || len(cases) != 2 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	c := cases[0]
	if c.Name != "1 of x y" || c.Line != 3 || c.Rule != "number 1" || c.Section != "Header" || c.Needs[0] != (Need{"msix", 1}) {
		t.Errorf("%+v", c)
	}
	if got := strings.Join(c.steps[1].args, " "); got != "GET_INFO h.id=1" {
		t.Errorf("args %q", got)
	}
	if cases[1].Name != "2 of " || cases[1].Needs[0].Min != 2 {
		t.Errorf("%+v", cases[1])
	}
}

func TestExpressions(t *testing.T) {
	sc := scope{vars: map[string]uint64{"n": 7, "r.size": 4096}, own: map[string]uint64{"READ": 1, "WRITE": 2}}
	for expr, want := range map[string]uint64{
		"5": 5, "0x10": 16, "4K": 4096, "2M": 2 << 20, "1G": 1 << 30, "READ|WRITE": 3, "READ|0x80": 0x81,
		"$n+1": 8, "$r.size-1": 4095, "MAX64": 1<<64 - 1, "MAX64-4095": 1<<64 - 4096, "MSIX": 2, "0": 0,
	} {
		if got, err := sc.eval(expr); err != nil || got != want {
			t.Errorf("%s is %#x, %v, want %#x", expr, got, err, want)
		}
	}
	for _, expr := range []string{"", "x", "$m", "1+", "READ|x", "5k", "99999999999999999999", "0x", "17179869184G"} {
		if got, err := sc.eval(expr); err == nil {
			t.Errorf("%q is %#x", expr, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	sc := scope{vars: map[string]uint64{}, own: map[string]uint64{"A": 1, "B": 2}}
	for _, c := range []struct {
		pattern string
		value   uint64
		ok      bool
	}{
		{"_", 9, true}, {"?x", 9, true}, {"$x", 9, true}, {"$x", 8, false},
		{"5", 5, true}, {"5", 6, false}, {"4..6", 6, true}, {"4..6", 7, false}, {"4..6", 3, false}, {"4..", 99, true}, {"..4", 4, true}, {"..4", 5, false},
		{"has:A", 3, true}, {"has:A|B", 1, false}, {"lacks:B", 1, true}, {"lacks:B", 2, false}, {"A|B", 3, true}, {"A|B", 7, false},
	} {
		if err := sc.match(c.pattern, c.value); (err == nil) != c.ok {
			t.Errorf("%s against %d: %v", c.pattern, c.value, err)
		}
	}
}

// TestReplies has replies that are not what a case wants: a suite that cannot fail would
// be worth nothing.
func TestReplies(t *testing.T) {
	const step = "reply argsz=16 flags=has:PCI num_regions=9.. num_irqs=5"
	good := []byte{16, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0}
	for _, c := range []struct {
		name string
		edit func([]byte) []byte
		want string
	}{
		{"as it should be", func(b []byte) []byte { return b }, ""},
		{"a field differs", func(b []byte) []byte { b[12] = 4; return b }, "num_irqs is 0x4, want 5"},
		{"a bit is missing", func(b []byte) []byte { b[4] = 1; return b }, "flags is 0x1, want has:PCI"},
		{"too small", func(b []byte) []byte { b[8] = 8; return b }, "num_regions is 0x8, want 9.."},
		{"short", func(b []byte) []byte { return b[:15] }, "ends before num_irqs"},
		{"long", func(b []byte) []byte { return append(b, 0) }, "goes on for 1 bytes more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parseStep(step)
			if err != nil {
				t.Fatal(err)
			}
			w, err := sortWords(s)
			if err != nil {
				t.Fatal(err)
			}
			err = w.matchReply(layouts["GET_INFO"].command, c.edit(append([]byte{}, good...)), scope{vars: map[string]uint64{}})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestItems(t *testing.T) {
	sc := scope{vars: map[string]uint64{}}
	for _, c := range []struct {
		step  string
		bytes string
		ok    bool
	}{
		{"reply u8:1 u16:0x302", "\x01\x02\x03", true},
		{"reply u8:1 u16:0x302", "\x01\x02\x04", false},
		{"reply hex:0a0b fill:9:2", "\x0a\x0b\x09\x09", true},
		{"reply hex:0a0b fill:9:2", "\x0a\x0b\x09\x08", false},
		{"reply any:2 zero:1", "ab\x00", true},
		{"reply any:2 zero:1", "ab", false},
		{"reply text:'a b' u8:0", "a b\x00", true},
		{"reply count:3", "\x00\x01\x02", true},
		{"reply count:3", "\x00\x01\x02\x03", false},
	} {
		s, err := parseStep(c.step)
		if err != nil {
			t.Fatal(err)
		}
		w, err := sortWords(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := matchItems([]byte(c.bytes), w.items, sc); (err == nil) != c.ok {
			t.Errorf("%s against %q: %v", c.step, c.bytes, err)
		}
	}
}
