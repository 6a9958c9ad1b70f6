package trace

import (
	"bytes"
	"io"

	"vfiouser/codec"
)

// script is what happened in one session of a recording.
type script struct {
	session int
	steps   []step
	// answers are the client's replies to the server's commands, by the step of the command.
	answers map[int]*message
}

// step is a message, or the end of what a side sends.
type step struct {
	message *message
	end     *Event // if message is nil
}

// readScripts reads a recording.
func readScripts(r io.Reader) ([]*script, error) {
	var all []*script
	bySession := make(map[int]*script)
	of := func(session int) *script {
		s := bySession[session]
		if s == nil {
			s = &script{session: session, answers: make(map[int]*message)}
			bySession[session] = s
			all = append(all, s)
		}
		return s
	}
	a := newAssembler(func(m *message) {
		s := of(m.session)
		s.steps = append(s.steps, step{message: m})
	})
	err := ReadRecording(r, func(e *Event) error {
		s := of(e.Session)
		switch e.Kind {
		case Data:
			a.add(e)
		case HangUp:
			a.end(e.Session, e.Channel, e.From)
			if e.Channel == Main || e.From == Client {
				s.steps = append(s.steps, step{end: e})
			}
		}
		return nil
	})
	for _, s := range all {
		s.findAnswers()
	}
	return all, err
}

// findAnswers finds which reply of the client belongs to which command of the server.
func (s *script) findAnswers() {
	open := make(map[callKey][]int)
	for i, st := range s.steps {
		m := st.message
		if m == nil || m.broken != nil || m.again {
			continue
		}
		key := callKey{direction{s.session, m.channel, Server}, m.header.Command, m.header.ID}
		switch {
		case m.from == Server && !m.header.IsReply():
			open[key] = append(open[key], i)
		case m.from == Client && m.header.IsReply() && len(open[key]) > 0:
			s.answers[open[key][0]] = m
			open[key] = open[key][1:]
		}
	}
}

// polls finds the run of equal reads of a region that begins at step i, each answered
// before the next: how many steps it has, and the last reply. A client that polls reads
// as often as the server is slow, so that only the last value counts.
func (s *script) polls(i int) (n int, last *message) {
	first := s.steps[i].message
	for i+n < len(s.steps) {
		read := s.steps[i+n].message
		if !isRead(read) || !bytes.Equal(read.bytes[codec.HeaderSize:], first.bytes[codec.HeaderSize:]) {
			break
		}
		reply, size := s.replyAfter(i + n)
		if reply == nil {
			break
		}
		n += size
		last = reply
	}
	return n, last
}

func isRead(m *message) bool {
	return m != nil && m.broken == nil && !m.again && m.from == Client && m.channel == Main &&
		m.header.Command == codec.CmdRegionRead && !m.header.IsReply() && !m.header.NoReply()
}

// replyAfter is the reply to the command at step i, if nothing but the server's commands
// and their answers lies between, and how many steps all that has.
func (s *script) replyAfter(i int) (reply *message, size int) {
	command := s.steps[i].message
	for j := i + 1; j < len(s.steps); j++ {
		m := s.steps[j].message
		switch {
		case m == nil || m.broken != nil || m.again:
			return nil, 0
		case m.from == Server && !m.header.IsReply(), m.from == Client && m.header.IsReply():
		case m.from == Server && m.header.ID == command.header.ID && m.header.Command == command.header.Command:
			return m, j + 1 - i
		default:
			return nil, 0
		}
	}
	return nil, 0
}
