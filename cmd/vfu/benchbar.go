package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// benchBar is the progress on a terminal.
type benchBar struct {
	bar  *progressbar.ProgressBar
	name int // room for a name, so that the bar stays where it is
}

// at shows how far a run is, and what comes next.
func (b *benchBar) at(done, total int, name string) {
	if b.bar == nil {
		size, err := unix.IoctlGetWinsize(int(os.Stderr.Fd()), unix.TIOCGWINSZ)
		if err != nil || os.Getenv("TERM") == "dumb" { // no terminal, or one that cannot erase
			return
		}
		var width int
		if b.name, width = barRoom(int(size.Col)); width == 0 {
			return
		}
		b.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(width),
			progressbar.OptionUseANSICodes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	b.bar.Describe(fmt.Sprintf("%-*.*s", b.name, b.name, name))
	_ = b.bar.Set(done) // a terminal that cannot show it does not stop the run
}

func (b *benchBar) done() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}

// barRoom divides the line of a terminal between a name and the bar, so that it is not broken
// into two. No width: there is no room.
func barRoom(columns int) (name, width int) {
	const (
		usual   = 80 // of a terminal that does not say
		numbers = 30 // the rest: percentage, edges, times up to hours, and the last column
		most    = 44 // of a name
	)
	if columns == 0 {
		columns = usual
	}
	room := max(columns-numbers, 0)
	width = min(room/3, 30)
	return min(room-width, most), width
}
