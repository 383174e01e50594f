package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	// chartRows is how many lines of bars a chart has at most.
	chartRows = 24
	// leastBar is how many columns the longest bar has at least, however narrow the screen is.
	leastBar = 10
	// mostEqual is how many equal rows follow each other at most; foldMark stands for those left out of more.
	mostEqual = 3
	foldMark  = "..."
)

// chartSteps are the spans of time that a line may stand for.
var chartSteps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute,
	5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour,
}

// Chart is a plan as bars over time, one line for each step between two times, within so many columns. A bar's "#" are desktops that are
// ready by the plan; where it is known how many were, "#" are those of them that were, "-" those that were not, and "+" what was
// ready beyond the plan. "|" is how many should run. Only ASCII: its characters are one column wide in every font. Of rows that are equal but for their times only the first and the last are shown.
// Nothing where there is nothing to show.
func Chart(points []*v1.PlanPoint, from, to time.Time, zone *time.Location, width int, known bool, now time.Time) []string {
	if len(points) == 0 || to.Before(from) {
		return nil
	}
	step := chartSteps[len(chartSteps)-1]
	for _, s := range slices.Backward(chartSteps) {
		if to.Sub(from)/s < chartRows-1 {
			step = s
		}
	}
	most := uint32(1)
	for _, p := range points {
		most = max(most, p.GetWanted(), p.GetPlanned(), p.GetReady())
	}
	c := chart{most: int(most), zone: zone, known: known, now: now, layout: "15:04", digits: max(6, len(fmt.Sprint(most)))}
	if step < time.Minute {
		c.layout = "15:04:05"
	}
	head := fmt.Sprintf("%-*s   %*s   %*s", len(c.layout), "TIME", c.digits, "WANTED", c.digits, "PLAN")
	if known {
		head += fmt.Sprintf("   %*s", c.digits, "READY")
	}
	c.bar = max(leastBar, width-len(head)-4)
	var rows []string
	for at := from.Truncate(step); ; at = at.Add(step) {
		rows = append(rows, strings.TrimRight(c.line(at, pointAt(points, at)), " "))
		if !at.Before(to) {
			return append([]string{head}, fold(rows, len(c.layout))...)
		}
	}
}

// fold leaves of rows that follow each other and are equal but for their times, of which each begins with one so long, the first and the
// last where there are more than mostEqual.
func fold(rows []string, clock int) (folded []string) {
	for i := 0; i < len(rows); {
		end := i + 1
		for end < len(rows) && rows[end][clock:] == rows[i][clock:] {
			end++
		}
		if end-i > mostEqual {
			folded = append(folded, rows[i], foldMark, rows[end-1])
		} else {
			folded = append(folded, rows[i:end]...)
		}
		i = end
	}
	return folded
}

type chart struct {
	most, bar, digits int
	zone              *time.Location
	layout            string
	known             bool
	now               time.Time
}

// pointAt is the point that holds at a time; before the first, the first.
func pointAt(points []*v1.PlanPoint, at time.Time) *v1.PlanPoint {
	point := points[0]
	for _, p := range points {
		if p.GetAt().AsTime().After(at) {
			break
		}
		point = p
	}
	return point
}

func (c chart) line(at time.Time, p *v1.PlanPoint) string {
	text := fmt.Sprintf("%s   %*d   %*d", at.In(c.zone).Format(c.layout), c.digits, p.GetWanted(), c.digits, p.GetPlanned())
	known := c.known && !at.After(c.now)
	switch {
	case known:
		text += fmt.Sprintf("   %*d", c.digits, p.GetReady())
	case c.known:
		text += fmt.Sprintf("   %*s", c.digits, "")
	}
	columns := []byte(strings.Repeat(" ", c.bar+2))
	planned, ready := c.columns(p.GetPlanned()), c.columns(p.GetReady())
	for i := range max(planned, ready) {
		switch {
		case !known && i < planned, known && i < min(planned, ready):
			columns[i] = '#'
		case i < planned:
			columns[i] = '-'
		case known:
			columns[i] = '+'
		}
	}
	if wanted := c.columns(p.GetWanted()); wanted > 0 {
		columns[wanted] = '|' // after the bar's end when that is the number that is wanted
	}
	return text + "   " + string(columns)
}

// columns is the length of so many desktops' bar; one that has any has at least one.
func (c chart) columns(n uint32) int {
	if n == 0 {
		return 0
	}
	return max(1, int(n)*c.bar/c.most)
}
