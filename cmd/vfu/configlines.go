package main

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2/unstable"
)

// linesOf finds the lines on which the keys and tables of a valid document stand. Keys are
// paths such as "nvme[1].queues": names, and the place within an array of tables.
func linesOf(data []byte) map[string]int {
	l := lineFinder{data: data, line: 1, lines: make(map[string]int), elements: make(map[string]int)}
	var p unstable.Parser
	p.Reset(data)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			table = l.path("", e)
		case unstable.ArrayTable:
			table = l.begin(l.path("", e))
		case unstable.KeyValue:
			l.keyValue(table, e)
		}
	}
	return l.lines
}

// element is the path of element i of an array of tables.
func element(array string, i int) string {
	if len(array) >= maxPath {
		return array
	}
	return fmt.Sprintf("%s[%d]", array, i)
}

type lineFinder struct {
	data         []byte
	offset, line int // the line is that of the offset
	lines        map[string]int
	elements     map[string]int // of arrays of tables
}

// maxPath bounds a path, so that keys within keys within keys take no memory. Those that are
// known are shorter.
const maxPath = 200

func join(path, key string) string {
	if path != "" && len(path) < maxPath {
		path += "."
	}
	return path + key[:min(len(key), max(0, maxPath-len(path)))]
}

// path is that of a table's header or of a key, below another one.
func (l *lineFinder) path(below string, e *unstable.Node) string {
	path := below
	for key := e.Key(); key.Next(); {
		if n := l.elements[path]; n > 0 {
			path = element(path, n-1)
		}
		n := key.Node()
		path = join(path, string(n.Data))
		l.move(n)
		l.note(path)
	}
	return path
}

// move goes on to where a node begins.
func (l *lineFinder) move(n *unstable.Node) {
	if offset := int(n.Raw.Offset); offset > l.offset {
		l.line += bytes.Count(l.data[l.offset:offset], []byte("\n"))
		l.offset = offset
	}
}

// note says that the path's line is the present one, if it was not there before.
func (l *lineFinder) note(path string) {
	if l.lines[path] == 0 {
		l.lines[path] = l.line
	}
}

// begin begins another element of an array of tables.
func (l *lineFinder) begin(array string) (path string) {
	path = element(array, l.elements[array])
	l.elements[array]++
	l.note(path)
	return path
}

func (l *lineFinder) keyValue(table string, e *unstable.Node) {
	path := l.path(table, e)
	switch v := e.Value(); v.Kind {
	case unstable.InlineTable:
		l.inline(path, v)
	case unstable.Array:
		for elements := v.Children(); elements.Next(); {
			if n := elements.Node(); n.Kind == unstable.InlineTable {
				l.move(n)
				l.inline(l.begin(path), n)
			}
		}
	}
}

func (l *lineFinder) inline(path string, table *unstable.Node) {
	for keys := table.Children(); keys.Next(); {
		if n := keys.Node(); n.Kind == unstable.KeyValue {
			l.keyValue(path, n)
		}
	}
}
