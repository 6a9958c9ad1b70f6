package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

const testTimeout = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type square struct {
	Number int `json:"number"`
}

// testHandlers are requests for tests. One of them waits until release is closed.
func testHandlers(release <-chan struct{}) map[string]Handler {
	return map[string]Handler{
		"square": func(data json.RawMessage) (any, error) {
			var a square
			err := Arguments(data, &a)
			return square{a.Number * a.Number}, err
		},
		"missing": func(json.RawMessage) (any, error) { return nil, Errorf(Missing, "not there") },
		"fail":    func(json.RawMessage) (any, error) { return nil, errors.New("broken") },
		"panic":   func(json.RawMessage) (any, error) { panic("defect") },
		"wait":    func(json.RawMessage) (any, error) { <-release; return "done", nil },
	}
}

func start(t testing.TB, idle, line time.Duration) (path string, s *Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control")
	s, err := serve(path, slog.New(slog.DiscardHandler), testHandlers(nil), idle, line)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()); s.Wait() })
	return path, s
}

func dial(t testing.TB, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(testTimeout)))
	return conn, bufio.NewReader(conn)
}

func send(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := conn.Write([]byte(text))
	must(t, err)
}

func TestRequests(t *testing.T) {
	holdings.CheckLeaks(t)
	path, _ := start(t, idleTime, lineTime)
	conn, in := dial(t, path)
	for _, c := range []struct{ name, request, want string }{
		{"result", `{"version":1,"id":7,"request":"square","arguments":{"number":5}}`, `{"version":1,"id":7,"result":{"number":25}}`},
		{"no arguments", `{"version":1,"request":"square"}`, `{"version":1,"result":{"number":0}}`},
		{"text as id", `{"version":1,"id":"a","request":"square"}`, `{"version":1,"id":"a","result":{"number":0}}`},
		{"blanks", " \t{ \"version\" : 1 , \"request\" : \"square\" } \r", `{"version":1,"result":{"number":0}}`},
		{"an error with a code", `{"version":1,"id":1,"request":"missing"}`, `{"version":1,"id":1,"error":{"code":"missing","message":"not there"}}`},
		{"another error", `{"version":1,"request":"fail"}`, `{"version":1,"error":{"code":"failed","message":"broken"}}`},
		{"a defect", `{"version":1,"request":"panic"}`, `{"version":1,"error":{"code":"failed","message":"defect: defect"}}`},
		{"unknown request", `{"version":1,"request":"dance"}`, `{"version":1,"error":{"code":"unknown","message":"unknown request \"dance\"; known are fail, missing, panic, square, wait"}}`},
		{"no request", `{"version":1}`, `{"version":1,"error":{"code":"malformed","message":"there is no request"}}`},
		{"other version", `{"version":2,"id":3,"request":"square"}`, `{"version":1,"id":3,"error":{"code":"bad-version","message":"version is 2, this is 1"}}`},
		{"no version", `{"request":"square"}`, `{"version":1,"error":{"code":"bad-version","message":"version is 0, this is 1"}}`},
		{"unknown member", `{"version":1,"request":"square","argument":{}}`, `malformed","message":"not a request: unknown field \"argument\"`},
		{"unknown argument", `{"version":1,"request":"square","arguments":{"numbre":5}}`, `argument","message":"arguments: unknown field \"numbre\"`},
		{"argument of another type", `{"version":1,"request":"square","arguments":{"number":"5"}}`, `argument","message":"arguments: number cannot be a string`},
		{"arguments that are a list", `{"version":1,"request":"square","arguments":[5]}`, `argument","message":"arguments: it cannot be a array`},
		{"id that is an object", `{"version":1,"id":{"a":1},"request":"square"}`, `malformed","message":"id must be a number or a text`},
		{"long id", `{"version":1,"id":"` + strings.Repeat("a", 100) + `","request":"square"}`, `malformed","message":"id must be a number or a text`},
		{"id that is true", `{"version":1,"id":true,"request":"square"}`, `malformed","message":"id must be a number or a text`},
		{"id that is null", `{"version":1,"id":null,"request":"square"}`, `malformed","message":"id must be a number or a text`},
		{"id that is no UTF-8", "{\"version\":1,\"id\":\"\xff\",\"request\":\"square\"}", `malformed","message":"id must be a number or a text`},
		{"negative id", `{"version":1,"id":-1.5e3,"request":"square"}`, `{"version":1,"id":-1.5e3,"result":{"number":0}}`},
		{"empty line", "", `malformed","message":"not a request: the line is empty, or ends early`},
		{"no JSON", "hello", `malformed","message":"not a request: invalid character 'h'`},
		{"half an object", `{"version":1`, `malformed","message":"not a request: the line is empty, or ends early`},
		{"two objects", `{"version":1,"request":"square"}{}`, `malformed","message":"not a request: something follows it`},
		{"a number", "5", `malformed","message":"not a request: it cannot be a number`},
		{"a tower", strings.Repeat("[", 30_000), `malformed"`},
		{"zeroes", strings.Repeat("\x00", 100), `malformed"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			send(t, conn, c.request+"\n")
			got, err := in.ReadString('\n')
			must(t, err)
			if got = strings.TrimSuffix(got, "\n"); got != c.want && (strings.HasPrefix(c.want, "{") || !strings.Contains(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRequestsOfOneWrite(t *testing.T) {
	holdings.CheckLeaks(t)
	path, _ := start(t, idleTime, lineTime)
	conn, in := dial(t, path)
	send(t, conn, strings.Repeat(`{"version":1,"request":"square","arguments":{"number":3}}`+"\n", 100))
	for range 100 {
		if got, err := in.ReadString('\n'); err != nil || !strings.Contains(got, ":9}") {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// What a client does wrong with its connection costs it that, and nobody else's.
func TestConnectionsThatEnd(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, c := range []struct {
		name  string
		does  func(t *testing.T, conn net.Conn)
		hears string
	}{
		{"line without end", func(t *testing.T, conn net.Conn) { send(t, conn, strings.Repeat("a", MaxRequest)) }, "a request of more than 65536 bytes"},
		{"silence", func(*testing.T, net.Conn) {}, ""},
		{"half a line", func(t *testing.T, conn net.Conn) { send(t, conn, `{"version"`) }, ""},
		{"half a line, then the end", func(t *testing.T, conn net.Conn) {
			send(t, conn, `{"version"`)
			must(t, conn.(*net.UnixConn).CloseWrite())
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := start(t, 50*time.Millisecond, 50*time.Millisecond)
			conn, in := dial(t, path)
			c.does(t, conn)
			got, _ := in.ReadString('\n')
			if !strings.Contains(got, c.hears) || c.hears == "" && got != "" {
				t.Errorf("hears %q, want %q", got, c.hears)
			}
			if _, err := in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection goes on: %v", err)
			}
			var r square
			must(t, Call(t.Context(), path, "square", square{4}, &r))
			if r.Number != 16 {
				t.Errorf("%d", r.Number)
			}
		})
	}
}

// A client that does not read its replies is not waited for.
func TestClientThatDoesNotRead(t *testing.T) {
	holdings.CheckLeaks(t)
	path, s := start(t, 50*time.Millisecond, 50*time.Millisecond)
	conn, _ := dial(t, path)
	request := []byte(strings.Repeat(`{"version":1,"request":"dance"}`+"\n", 1000))
	for {
		if _, err := conn.Write(request); err != nil {
			break // the server has hung up
		}
	}
	must(t, Call(t.Context(), path, "square", square{4}, nil))
	must(t, s.Close())
	s.Wait()
}

func TestTooManyConnections(t *testing.T) {
	holdings.CheckLeaks(t)
	path, _ := start(t, idleTime, lineTime)
	for range MaxConnections {
		conn, in := dial(t, path)
		send(t, conn, `{"version":1,"request":"square"}`+"\n")
		_, err := in.ReadString('\n') // it has been let in
		must(t, err)
	}
	err := Call(t.Context(), path, "square", nil, nil)
	var e *Error
	if !errors.As(err, &e) || e.Code != Busy {
		t.Errorf("one more: %v", err)
	}
}

func TestCloseLetsRequestsEnd(t *testing.T) {
	holdings.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "control")
	release, begun := make(chan struct{}), make(chan struct{})
	handlers := testHandlers(release)
	wait := handlers["wait"]
	handlers["wait"] = func(data json.RawMessage) (any, error) { close(begun); return wait(data) }
	s, err := Serve(path, slog.New(slog.DiscardHandler), handlers)
	must(t, err)
	result := make(chan error, 1)
	go func() { result <- Call(context.Background(), path, "wait", nil, nil) }()
	<-begun
	must(t, s.Close())
	must(t, s.Close())
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the socket is still there")
	}
	close(release)
	s.Wait()
	if err := <-result; err != nil {
		t.Errorf("a request that had begun: %v", err)
	}
}

func TestSocket(t *testing.T) {
	holdings.CheckLeaks(t)
	old := unix.Umask(0)
	defer unix.Umask(old)
	path, _ := start(t, idleTime, lineTime)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := Serve(path, log, nil); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "another server listens there") {
		t.Errorf("where another one listens: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Serve(file, log, nil); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("on a file: %v", err)
	}
	if _, err := Serve(file+"/no/s", log, nil); err == nil {
		t.Error("below a file")
	}
	if _, err := Serve(filepath.Join(filepath.Dir(file), "no", "s"), log, nil); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("in no directory: %v", err)
	}
	if _, err := Serve("/tmp/"+strings.Repeat("a", 200), log, nil); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("long path: %v", err)
	}
	if _, err := Serve("@"+t.Name(), log, nil); err == nil || !strings.Contains(err.Error(), "any user may connect") {
		t.Errorf("abstract socket: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	s, err := Serve(stale, log, nil)
	must(t, err)
	must(t, os.Remove(stale))
	other, err := net.Listen("unix", stale) // another server takes the place
	must(t, err)
	defer other.Close()
	must(t, s.Close())
	s.Wait()
	if _, err := os.Lstat(stale); err != nil {
		t.Errorf("another server's socket was removed: %v", err)
	}
}

func TestCallOfWhatIsNoServer(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, c := range []struct {
		name, answer string
		want         error
	}{
		{"other lines", "HTTP/1.1 400\n", ErrProtocol},
		{"other JSON", "{}\n", ErrProtocol},
		{"other version", `{"version":2}` + "\n", ErrProtocol},
		{"result of another form", `{"version":1,"result":[]}` + "\n", ErrProtocol},
		{"no answer", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			must(t, err)
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = bufio.NewReader(conn).ReadString('\n')
				_, _ = conn.Write([]byte(c.answer))
				conn.Close()
			}()
			err = Call(t.Context(), path, "square", nil, &square{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", path)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Call(ctx, path, "square", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
}
