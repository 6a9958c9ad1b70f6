package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"vfiouser/test/qmp"
)

// agent is the host's end of the guest's second serial line; init describes what is said
// there. One caller at a time.
type agent struct {
	conn net.Conn
	in   *bufio.Reader
	last int   // id of the last script sent
	err  error // sticky: the line is out of step
}

// ExitError says that a script ended in the guest with a status other than 0.
type ExitError struct {
	Status int
	Output string // what it printed
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("exit status %d in the guest: %s", e.Status, strings.TrimSpace(e.Output))
}

// newAgent takes conn over.
func newAgent(conn net.Conn) *agent {
	return &agent{conn: conn, in: bufio.NewReader(conn)}
}

// ready waits until the guest's init has said that it takes scripts.
func (a *agent) ready(ctx context.Context) error {
	defer qmp.Deadline(ctx, a.conn)()
	for {
		line, err := a.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("wait for the guest to boot: %w", cause(ctx, err))
		}
		if line == "@READY\n" {
			return nil
		}
	}
}

// run has the guest run a script, and returns what it printed on both its outputs.
func (a *agent) run(ctx context.Context, script string) (string, error) {
	if a.err != nil {
		return "", fmt.Errorf("the guest's serial line was given up: %w", a.err)
	}
	defer qmp.Deadline(ctx, a.conn)()
	output, status, err := a.exchange(script)
	if err != nil {
		a.err = cause(ctx, err)
		return output, fmt.Errorf("run in the guest: %w", a.err)
	}
	if status != 0 {
		return output, &ExitError{status, output}
	}
	return output, nil
}

// send has the guest start a script whose end will not be heard of.
func (a *agent) send(ctx context.Context, script string) error {
	defer qmp.Deadline(ctx, a.conn)()
	a.last++
	_, err := fmt.Fprintf(a.conn, "@RUN %d %d\n%s", a.last, len(script), script)
	return err
}

func (a *agent) exchange(script string) (output string, status int, err error) {
	a.last++
	if _, err := fmt.Fprintf(a.conn, "@RUN %d %d\n%s", a.last, len(script), script); err != nil {
		return "", 0, err
	}
	end := fmt.Sprintf("@END %d %%d\n", a.last)
	var printed strings.Builder
	for {
		line, err := a.in.ReadString('\n')
		if err != nil {
			return printed.String() + line, 0, err
		}
		if _, err := fmt.Sscanf(line, end, &status); err == nil {
			// (the newline before the mark is init's)
			return strings.TrimSuffix(printed.String(), "\n"), status, nil
		}
		printed.WriteString(line)
	}
}

// cause puts the reason for which ctx ended beside the time-out that it made of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}
