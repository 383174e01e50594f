package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"daybreak/cmd/daybreak/show"
)

// progress shows how far something is: one line that is written over on a terminal; elsewhere a line when it changed, at
// most one in five seconds.
type progress struct {
	out      io.Writer
	terminal bool
	shown    string
	// pending came too soon after what was shown.
	pending string
	at      time.Time
	width   int
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, terminal: isTerminal(out)}
}

const filePace = 5 * time.Second

// show shows a line, unless it is the same again, or, in a file, another was written a moment ago.
func (p *progress) show(line string) {
	line = show.Clean(line)
	if line == p.shown {
		return
	}
	if p.pending = line; !p.terminal && time.Since(p.at) < filePace {
		return
	}
	p.pending = ""
	p.shown, p.at = line, time.Now()
	if !p.terminal {
		fmt.Fprintln(p.out, line)
		return
	}
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-show.Width(line))))
	p.width = show.Width(line)
}

// done clears the line; in a file it writes the last one, if it was not written yet.
func (p *progress) done() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
	if !p.terminal && p.pending != "" {
		fmt.Fprintln(p.out, p.pending)
		p.pending = ""
	}
}
