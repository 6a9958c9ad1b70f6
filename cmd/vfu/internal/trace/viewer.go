package trace

import "time"

// view shows messages; see Printer and Summary.
type view interface {
	// message shows a message; answered tells that it is the reply to a command that
	// was seen, latency how long that took.
	message(m *message, latency time.Duration, answered bool)
	// session shows the beginning or the end of what a side sends.
	session(e *Event)
}

// Viewer shows Events as messages.
type Viewer struct {
	views     []view
	assembler *assembler
	calls     *calls
}

// NewViewer makes one that shows nothing yet.
func NewViewer() *Viewer {
	v := &Viewer{calls: newCalls()}
	v.assembler = newAssembler(v.message)
	return v
}

// Add adds a Printer or a Summary.
func (v *Viewer) Add(w view) { v.views = append(v.views, w) }

// Show shows one Event after the other.
func (v *Viewer) Show(e *Event) {
	switch e.Kind {
	case Data:
		v.assembler.add(e)
		return
	case Connect: // clients come one after the other
		v.assembler.endBefore(e.Session)
		v.calls.forget(e.Session - 1)
	case HangUp:
		v.assembler.end(e.Session, e.Channel, e.From)
	}
	for _, w := range v.views {
		w.session(e)
	}
	if e.Kind == HangUp && e.Channel == Main {
		v.calls.forget(e.Session)
	}
}

func (v *Viewer) message(m *message) {
	latency, answered := v.calls.note(m)
	for _, w := range v.views {
		w.message(m, latency, answered)
	}
}
