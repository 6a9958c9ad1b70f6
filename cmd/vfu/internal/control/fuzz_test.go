package control

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// FuzzRequest are lines of a client. Each has one line as its answer, of this version, with a result or
// an error, and with the request's id if that could be read.
//
//fuzz:covers cmd/vfu/internal/control/protocol.go
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		`{"version":1,"id":7,"request":"square","arguments":{"number":5}}`, `{"version":1,"id":"a","request":"square"}`,
		`{"version":2,"id":-1e9,"request":"square"}`, `{"version":1,"request":"nothing"}`, `{"version":1,"request":"panic","id":3}`,
		`{"version":1,"request":"fail"}`, `{"version":1,"request":"missing"}`, `{"version":1,"request":"square","arguments":{"other":1}}`,
		`{"version":1,"request":"square","arguments":[]}`, `{"version":1,"id":{},"request":"square"}`, `{} {}`, ``, `[`, "\xff",
		`{"version":1,"id":"\ud800","request":"square"}`, `{"version":1,"request":"square","arguments":{"number":1e400}}`,
	} {
		f.Add([]byte(line))
	}
	handlers := testHandlers(nil)
	delete(handlers, "wait")
	s := &Server{log: slog.New(slog.DiscardHandler), handlers: handlers}
	f.Fuzz(func(t *testing.T, line []byte) {
		answer := s.answer(line)
		if bytes.IndexByte(answer, '\n') != len(answer)-1 {
			t.Fatalf("%q is no line", answer)
		}
		var r reply
		if err := strict(answer, &r); err != nil || r.Version != Version {
			t.Fatalf("%q: %v", answer, err)
		}
		if (r.Error == nil) == (r.Result == nil) {
			t.Fatalf("%q: either a result or an error", answer)
		}
		if r.Error != nil && (r.Error.Code == "" || r.Error.Message == "" || strings.Contains(r.Error.Message, "json: ")) {
			t.Fatalf("%q says nothing", answer)
		}
		q, err := parse(line)
		if err == nil && !sameJSON(q.ID, r.ID) {
			t.Fatalf("the answer to %q has the id %q", q.ID, r.ID)
		}
		if err != nil && r.Error == nil {
			t.Fatalf("%q is %v, and has a result", line, err)
		}
	})
}

// sameJSON compares two values, however they are written.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
