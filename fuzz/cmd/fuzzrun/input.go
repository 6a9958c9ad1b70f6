package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// input is an input of a target: a value for each argument.
type input []value

// value is an argument.
type value struct {
	bytes []byte // of a []byte or a string
	text  string // the type of those; of another argument the line that stores it
	whole bool   // it is such another one, which is left as it is
}

const inputVersion = "go test fuzz v1"

// parseInput reads an input as testdata/fuzz stores it.
func parseInput(content []byte) (input, error) {
	lines := strings.Split(string(content), "\n")
	if strings.TrimSuffix(lines[0], "\r") != inputVersion {
		return nil, errors.New("not an input of a fuzz target")
	}
	var in input
	for _, line := range lines[1:] {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		v, err := parseValue(line)
		if err != nil {
			return nil, err
		}
		in = append(in, v)
	}
	return in, nil
}

func parseValue(line string) (value, error) {
	for _, kind := range []string{"[]byte", "string"} {
		quoted, ok := strings.CutPrefix(line, kind+"(")
		if !ok {
			continue
		}
		text, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
		if err != nil {
			return value{}, fmt.Errorf("value of an input: %w", err)
		}
		return value{bytes: []byte(text), text: kind}, nil
	}
	return value{text: line, whole: true}, nil
}

// marshal is what testdata/fuzz stores.
func (in input) marshal() []byte {
	b := []byte(inputVersion + "\n")
	for _, v := range in {
		if v.whole {
			b = append(b, v.text...)
		} else {
			b = fmt.Appendf(b, "%s(%q)", v.text, v.bytes)
		}
		b = append(b, '\n')
	}
	return b
}

// size is what can be made less, in bytes.
func (in input) size() (n int) {
	for _, v := range in {
		n += len(v.bytes)
	}
	return n
}

// with is the input with another value.
func (in input) with(i int, b []byte) input {
	in = slices.Clone(in)
	in[i].bytes = b
	return in
}

func (in input) equal(other input) bool { return bytes.Equal(in.marshal(), other.marshal()) }

// store writes the input to a folder of testdata/fuzz, under the name that Go gives it.
func (in input) store(folder string) (name string, err error) {
	content := in.marshal()
	name = fmt.Sprintf("%x", sha256.Sum256(content))[:16]
	return name, errors.Join(os.MkdirAll(folder, 0o777), os.WriteFile(filepath.Join(folder, name), content, 0o666))
}
