package engine

import "time"

const (
	// maxTurn is how long one session is served before the others have their turn.
	maxTurn = time.Millisecond
	// turnStep is how many commands are served between two looks at the clock: most
	// events bring fewer.
	turnStep = 32
)

// turn bounds the time that one event costs. Its zero value is a new turn.
type turn struct {
	commands int
	begin    time.Time // when the first turnStep commands were done
	spent    bool
}

// over counts a command, and says whether no more is to be served now.
func (t *turn) over() bool {
	if t.commands++; t.commands%turnStep == 0 {
		now := time.Now()
		if t.commands == turnStep {
			t.begin = now
		}
		t.spent = now.Sub(t.begin) > maxTurn
	}
	return t.spent
}
