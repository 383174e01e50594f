package demand

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// maxTold is how many days are told one by one.
const maxTold = 10

// Explain says in plain sentences why a pool asks for what it asks for at t, with the days and the values behind what was
// learned. Nothing for a pool without a schedule.
func Explain(p Pool, t time.Time) []string {
	if p.Spec.GetSchedule() == nil {
		return nil
	}
	step := Curve(p, t, t.Add(time.Second))[0]
	text := []string{fmt.Sprintf("its schedule asks for %d of %d desktops: %s", step.Target, p.Spec.GetDesktops(), step.Reason)}
	if p.Calendar == nil {
		return text
	}
	a := newAgenda(p, t, t.Add(time.Second))
	if word, _ := a.word(t); word == learned {
		text = append(text, a.account(t, "in use at "+a.clock(t), claimedAt)...)
	}
	if step.Buffer == 0 {
		return text
	}
	text = append(text, fmt.Sprintf("and for %d beside those in use: %s", step.Buffer, step.BufferReason))
	if _, open := a.openAt(t); open && bufferWord(p.Spec.GetSchedule()) == learned {
		text = append(text, a.account(t, fmt.Sprintf("arrived within %v from %s on", p.readyIn(), a.clock(t)), arrivalsWithin(p.readyIn()))...)
	}
	return text
}

// clock is the beginning of the bin of t, as the pool's people read it.
func (a *agenda) clock(t time.Time) string {
	at := binOf(t.In(a.pool.Calendar.Zone()))
	return fmt.Sprintf("%02d:%02d", at*5/60, at*5%60)
}

// account tells the days behind a number, newest first.
func (a *agenda) account(t time.Time, what string, of series) []string {
	l, ok := a.learn(t, of)
	if !ok {
		return nil
	}
	var values []string
	for _, s := range slices.Backward(l.seen) {
		if len(values) == maxTold {
			values = append(values, fmt.Sprintf("and %d more", len(l.seen)-maxTold))
			break
		}
		value := fmt.Sprintf("%d on %s", s.had, s.date)
		if s.count != s.had {
			value += fmt.Sprintf(" (%d by the trend since)", s.count)
		}
		values = append(values, value)
	}
	text := what + ": " + strings.Join(values, ", ")
	switch {
	case l.young:
		text += fmt.Sprintf("; until %d days were watched the most of all counts", youngDays)
	case l.need > l.most:
		text += fmt.Sprintf("; no more than %d in %s of cases, and %d more since %d days are too few to show the rest", l.most, percent(l.level), l.need-l.most, len(l.seen))
	default:
		text += fmt.Sprintf("; no more than %d in %s of cases", l.most, percent(l.level))
	}
	return []string{text}
}

// percent is a level as people write it: "99%", "99.9%".
func percent(level float64) string {
	return fmt.Sprintf("%v%%", math.Round(level*10000)/100)
}
