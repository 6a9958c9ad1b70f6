package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// Played counts what a replay has done.
type Played struct {
	Sessions int
	Sent     int // messages of the client, its answers to the server's commands included
	Compared int // messages of the server
}

// Replay plays the client's part of a recording against the server at a socket. For each
// thing that the server did it waits for settle. An error that is a *Difference tells of
// the first one; any other says why the comparison could not be made.
func Replay(ctx context.Context, recording io.Reader, server string, settle time.Duration) (Played, error) {
	var played Played
	scripts, err := readScripts(recording)
	if err != nil {
		return played, err
	}
	for _, s := range scripts {
		for deadline := time.Now().Add(settle); ; {
			p := &player{script: s, settle: settle, played: &played, outstanding: make(map[callKey]int)}
			err := p.run(ctx, server)
			// A server that is still busy with the end of the last session turns us away.
			if errors.Is(err, errTurnedAway) && played.Sessions > 0 && time.Now().Before(deadline) {
				time.Sleep(settle / 100)
				continue
			}
			if err != nil {
				return played, err
			}
			break
		}
		played.Sessions++
	}
	return played, nil
}

// errTurnedAway marks the Difference of a server that hangs up before it has said anything.
var errTurnedAway = errors.New("server hangs up at once")

// player plays one session.
type player struct {
	script *script
	settle time.Duration
	played *Played
	begin  time.Time // of the recorded session
	now    time.Time // of the step, in the recording

	main, twin *ear
	heard      chan heard
	quit       chan struct{}

	early       []heard         // what was heard while something was sent
	replies     []*message      // that came and are not compared yet
	commands    map[int]bool    // steps: the server's commands that came
	outstanding map[callKey]int // commands sent and not answered
	anything    bool            // the server has said something
	silent      bool            // the server has hung up
	mute        bool            // it does not listen any more
}

// heard is a message of the server, or its end.
type heard struct {
	message *message
	err     error
}

// run plays the script.
func (p *player) run(ctx context.Context, server string) error {
	s, err := dial(ctx, server)
	if err != nil {
		return fmt.Errorf("no server answers at %s: start one there, or correct --connect: %w", server, err)
	}
	p.heard, p.quit = make(chan heard), make(chan struct{})
	p.commands = make(map[int]bool)
	p.main = listen(s, Main, p.heard, p.quit)
	stop := context.AfterFunc(ctx, func() { s.shutdown(unix.SHUT_RDWR) })
	defer func() {
		stop()
		close(p.quit)
		p.main.close()
		if p.twin != nil {
			p.twin.close()
		}
	}()
	for i := 0; i < len(p.script.steps); {
		if e := p.script.steps[i].end; e != nil && e.From == Client && e.Channel == Main {
			break // what the server still said reached nobody
		}
		n, err := p.step(i)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// step plays step i and returns how many steps that were.
func (p *player) step(i int) (int, error) {
	st := &p.script.steps[i]
	m := st.message
	if m == nil {
		return 1, p.end(st.end)
	}
	if p.begin.IsZero() {
		p.begin = m.time
	}
	p.now = m.time
	switch {
	case m.from == Client && (m.broken != nil || m.again || !m.header.IsReply()):
		if n, last := p.pollsAt(i, m); n > 0 {
			return n, p.poll(i, n, last)
		}
		return 1, p.send(m)
	case m.from == Client: // an answer, which was given when the server asked
		return 1, nil
	case m.again: // of a server that was out of step
		return 1, nil
	case m.broken != nil:
		return 1, p.expectBroken(m)
	case m.header.IsReply():
		return 1, p.expectReply(m)
	}
	return 1, p.expectCommand(i)
}

func (p *player) pollsAt(i int, m *message) (int, *message) {
	if !isRead(m) {
		return 0, nil
	}
	return p.script.polls(i)
}

// end closes the twin socket, or waits for the end of the server.
func (p *player) end(e *Event) error {
	p.now = e.Time
	if e.Channel == Twin {
		if p.twin != nil {
			p.twin.stream.shutdown(unix.SHUT_RDWR)
		}
		return nil
	}
	for deadline := p.deadline(); !p.silent; {
		if err := p.listen(deadline); err != nil {
			return err
		}
		if !p.silent && !time.Now().Before(deadline) {
			return p.differs("the server hangs up", fmt.Sprintf("it is still there after %v", p.settle))
		}
	}
	return nil
}

// send sends a message of the client as it was recorded.
func (p *player) send(m *message) error {
	if m.broken == nil && !m.again && !m.header.NoReply() {
		p.outstanding[p.keyOf(m)]++
	}
	p.played.Sent++
	s := p.main.stream
	if m.channel == Twin {
		if p.twin == nil {
			return nil
		}
		s = p.twin.stream
	}
	begin := 0
	for k := 0; k <= len(m.passed) && !p.mute; k++ {
		end, fds := len(m.bytes), []int(nil)
		if k < len(m.passed) {
			end = m.passed[k].offset
		}
		if k > 0 {
			var err error
			if fds, err = openAll(m.passed[k-1].descriptors); err != nil {
				return err
			}
		}
		err := p.pass(s, m.bytes[begin:end], fds)
		closeAll(fds)
		if err != nil {
			return err
		}
		begin = end
	}
	return nil
}

// pass sends bytes. It listens meanwhile: a server that cannot send may well not read.
func (p *player) pass(s stream, b []byte, fds []int) error {
	sent := make(chan error, 1)
	go func() { sent <- s.send(b, fds) }()
	timer := time.NewTimer(p.settle)
	defer timer.Stop()
	for {
		select {
		case err := <-sent:
			p.mute = err != nil // what it did then is to be seen by its end
			return nil
		case h := <-p.heard:
			p.early = append(p.early, h)
		case <-timer.C:
			s.shutdown(unix.SHUT_RDWR)
			<-sent
			return p.differs("the server reads what the client sends", fmt.Sprintf("it does not read for %v", p.settle))
		}
	}
}

func (p *player) keyOf(m *message) callKey {
	return callKey{direction{p.script.session, Main, Client}, m.header.Command, m.header.ID}
}

func (p *player) deadline() time.Time { return time.Now().Add(p.settle) }

// poll reads until the value is the last one that was recorded.
func (p *player) poll(i, n int, last *message) error {
	read := p.script.steps[i].message
	for pause, deadline := time.Millisecond, p.deadline(); ; pause = min(2*pause, 20*time.Millisecond) {
		if err := p.send(read); err != nil {
			return err
		}
		got, err := p.reply(read.header.ID, read.header.Command, last)
		if err != nil {
			return err
		}
		if same(last, got) {
			break
		}
		if !time.Now().Add(pause).Before(deadline) {
			return p.replyDiffers(last, got)
		}
		time.Sleep(pause)
	}
	p.played.Compared++
	for j := i; j < i+n; j++ {
		if m := p.script.steps[j].message; m.from == Server && !m.header.IsReply() {
			if err := p.expectCommand(j); err != nil {
				return err
			}
		}
	}
	return nil
}

// expectReply waits for the reply and compares it.
func (p *player) expectReply(m *message) error {
	got, err := p.reply(m.header.ID, m.header.Command, m)
	if err != nil {
		return err
	}
	if !same(m, got) {
		return p.replyDiffers(m, got)
	}
	p.played.Compared++
	return p.takeTwin(m)
}

// reply waits for the reply to a command; want is for the Difference if none comes.
func (p *player) reply(id uint16, c codec.Command, want *message) (*message, error) {
	for deadline := p.deadline(); ; {
		for i, m := range p.replies {
			if m.header.ID == id && m.header.Command == c {
				p.replies = slices.Delete(p.replies, i, i+1)
				return m, nil
			}
		}
		switch {
		case p.silent:
			d := p.differs(want.text(), "the server hangs up")
			if !p.anything {
				d = errors.Join(d, errTurnedAway)
			}
			return nil, d
		case !time.Now().Before(deadline):
			return nil, p.differs(want.text(), fmt.Sprintf("no reply in %v", p.settle))
		}
		if err := p.listen(deadline); err != nil {
			return nil, err
		}
	}
}

// expectCommand waits until the server has sent the command of step i.
func (p *player) expectCommand(i int) error {
	for deadline := p.deadline(); !p.commands[i]; {
		want := p.script.steps[i].message
		switch {
		case p.silent:
			return p.differs(want.text(), "the server hangs up")
		case !time.Now().Before(deadline):
			return p.differs(want.text(), fmt.Sprintf("no such command in %v", p.settle))
		}
		if err := p.listen(deadline); err != nil {
			return err
		}
	}
	p.played.Compared++
	return nil
}

// expectBroken waits for bytes that are no message; whether they are the same bytes does
// not matter.
func (p *player) expectBroken(*message) error {
	for deadline := p.deadline(); !p.silent && time.Now().Before(deadline); {
		if err := p.listen(deadline); err != nil {
			var d *Difference
			if errors.As(err, &d) {
				return nil
			}
			return err
		}
	}
	return p.differs("something that is no message", "nothing of the kind")
}

// listen hears one thing of the server, at most until the deadline.
func (p *player) listen(deadline time.Time) error {
	if len(p.early) > 0 {
		h := p.early[0]
		p.early = p.early[1:]
		return p.hear(h)
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case h := <-p.heard:
		return p.hear(h)
	case <-timer.C:
		return nil
	}
}

func (p *player) hear(h heard) error {
	m := h.message
	if m == nil {
		p.silent = true
		if h.err != io.EOF && !errors.Is(h.err, unix.ECONNRESET) {
			return h.err
		}
		return nil
	}
	p.anything = true
	switch {
	case m.broken != nil || m.again:
		return p.differs("nothing", "no message: "+string(appendBroken(nil, m)))
	case m.header.IsReply():
		key := p.keyOf(m)
		if p.outstanding[key] == 0 {
			return p.differs("nothing", "a reply to no command: "+m.text())
		}
		p.outstanding[key]--
		p.replies = append(p.replies, m)
		return nil
	}
	return p.answer(m)
}

// answer gives the recorded answer to a command of the server. Which of its commands
// comes first is its own affair.
func (p *player) answer(m *message) error {
	for i, st := range p.script.steps {
		want := st.message
		if want == nil || p.commands[i] || want.broken != nil || want.again || want.from != Server || want.header.IsReply() ||
			want.channel != m.channel || !same(want, m) {
			continue
		}
		p.commands[i] = true
		answer := p.script.answers[i]
		if answer == nil {
			return nil
		}
		reply := *answer
		reply.bytes = slices.Clone(answer.bytes)
		reply.header.ID = m.header.ID
		reply.header.Put(reply.bytes)
		return p.sendAnswer(&reply)
	}
	return p.differs("no such command", m.text())
}

func (p *player) sendAnswer(m *message) error {
	again := *m
	again.again = true // it is no command that is to be answered
	return p.send(&again)
}

// takeTwin begins to listen to the twin socket that came with a VERSION reply.
func (p *player) takeTwin(m *message) error {
	if m.header.Command != codec.CmdVersion || p.twin != nil {
		return nil
	}
	fds := p.main.takeKept()
	var v codec.VersionMsg
	if v.Decode(m.bytes[codec.HeaderSize:]) == nil && v.Caps.TwinSocket != nil && v.Caps.TwinSocket.FDIndex != nil {
		if i := *v.Caps.TwinSocket.FDIndex; i < uint64(len(fds)) && isUnixStream(fds[i]) {
			p.twin = listen(stream{fds[i]}, Twin, p.heard, p.quit)
			fds = slices.Delete(fds, int(i), int(i)+1)
		}
	}
	closeAll(fds)
	return nil
}
