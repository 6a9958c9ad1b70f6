package profile

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Count is how many of some statements ran.
type Count struct{ Covered, Statements int }

// Percent is 100 if there are no statements.
func (c Count) Percent() float64 {
	if c.Statements == 0 {
		return 100
	}
	return 100 * float64(c.Covered) / float64(c.Statements)
}

// Add adds another count.
func (c *Count) Add(other Count) {
	c.Covered += other.Covered
	c.Statements += other.Statements
}

// block is a run of statements that is left as a whole or not at all.
type block struct{ file, place string }

// Read counts by file, as the profile names it: IMPORT/PATH/file.go. A block that is listed more
// than once, as it is when several packages' tests cover it, ran if it ran for one of them.
func Read(r io.Reader) (map[string]Count, error) {
	type state struct {
		statements int
		ran        bool
	}
	blocks := map[block]state{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "mode: ") {
			continue
		}
		// vfiouser/codec/header.go:35.27,37.2 1 0
		fields := strings.Fields(line)
		colon := strings.LastIndexByte(line, ':')
		if len(fields) != 3 || colon < 0 || colon > len(fields[0]) {
			return nil, fmt.Errorf("not a line of a coverage profile: %q", line)
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("not a line of a coverage profile: %q", line)
		}
		b := block{line[:colon], fields[0][colon+1:]}
		blocks[b] = state{statements, blocks[b].ran || fields[2] != "0"}
	}
	files := map[string]Count{}
	for b, s := range blocks {
		c := Count{Statements: s.statements}
		if s.ran {
			c.Covered = s.statements
		}
		sum := files[b.file]
		sum.Add(c)
		files[b.file] = sum
	}
	return files, lines.Err()
}
