package show

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Span is a length of time in at most two units: "45s", "3m20s", "4h10m", "12d3h", "90d".
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(big time.Duration, bigName string, small time.Duration, smallName string) string {
		if rest := d % big / small; rest > 0 {
			return fmt.Sprintf("%d%s%d%s", d/big, bigName, rest, smallName)
		}
		return fmt.Sprintf("%d%s", d/big, bigName)
	}
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 10*time.Minute:
		return two(time.Minute, "m", time.Second, "s")
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return two(time.Hour, "h", time.Minute, "m")
	case d < 60*day:
		return two(day, "d", time.Hour, "h")
	}
	return fmt.Sprintf("%dd", d/day)
}

// Age is the time since a moment, in whole seconds; empty when the moment is not known.
func Age(now time.Time, at *timestamppb.Timestamp) string {
	if !at.IsValid() || at.AsTime().IsZero() {
		return ""
	}
	return Span(now.Sub(at.AsTime()).Truncate(time.Second))
}

// Moment is a time in now's zone, which it names, since others are told in other zones, and how long ago:
// "2026-11-24 08:30:00 JST (3m ago)".
func Moment(now time.Time, at *timestamppb.Timestamp) string {
	if !at.IsValid() {
		return ""
	}
	when := at.AsTime().In(now.Location())
	text := Time(when)
	if when.After(now) {
		return text + " (in " + Span(when.Sub(now).Truncate(time.Second)) + ")"
	}
	return text + " (" + Age(now, at) + " ago)"
}

// Time is a time for people, in its own zone.
func Time(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }

// Bytes is a size in binary units.
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	size, names := float64(n), []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := -1
	for size >= unit && i < len(names)-1 {
		size, i = size/unit, i+1
	}
	if size >= 100 {
		return fmt.Sprintf("%.0f %s", size, names[i])
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + " " + names[i]
}

// word is an enum's value without its type's name: "READY". Empty when it is unspecified.
func word(value protoreflect.Enum) string {
	descriptor := value.Descriptor()
	prefix := strings.TrimSuffix(string(descriptor.Values().Get(0).Name()), "UNSPECIFIED")
	if value.Number() == 0 {
		return ""
	}
	if known := descriptor.Values().ByNumber(value.Number()); known != nil {
		return strings.TrimPrefix(string(known.Name()), prefix)
	}
	return fmt.Sprint(value.Number())
}

// stateWord is the state as tables have it.
func stateWord(d *v1.Desktop) string {
	state := store.State(d)
	text := word(state)
	switch {
	case d.GetStatus().GetPausedIo() && state != v1.DesktopState_DESKTOP_STATE_PENDING:
		text += " (disk full or failing)"
	case state == v1.DesktopState_DESKTOP_STATE_PREPARING && d.GetStatus().GetProgressPercent() > 0:
		text += fmt.Sprintf(" %d%%", d.GetStatus().GetProgressPercent())
	}
	if d.GetMeta().GetDeletion() != nil {
		text += ", going"
	}
	return text
}

// Reason is why a desktop is not ready, in the words of whoever knows; empty when it is, or when nobody said. Times are in
// now's zone.
func Reason(d *v1.Desktop, now time.Time) string {
	if store.State(d) == v1.DesktopState_DESKTOP_STATE_READY {
		return ""
	}
	if d.GetIncarnation().GetHost() == "" {
		return d.GetIncarnation().GetUnplacedReason()
	}
	if d.GetStatus().GetGeneration() != d.GetIncarnation().GetGeneration() {
		return "the host's agent has not reported on it yet"
	}
	// A host says the same, but does not know the zone of who reads it.
	if at := d.GetIncarnation().GetStartAt(); at.AsTime().After(now) && sleeps(d) {
		return "starts at " + Time(at.AsTime().In(now.Location()))
	}
	return cmp.Or(d.GetStatus().GetMessage(), asleep(d))
}

// sleeps: the desktop is prepared, and waits for the time at which it is wanted ready.
func sleeps(d *v1.Desktop) bool {
	return store.State(d) == v1.DesktopState_DESKTOP_STATE_PREPARED && d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY
}

// asleep is why a desktop of which its host says nothing does not run; empty when it is to run.
func asleep(d *v1.Desktop) string {
	user := cmp.Or(d.GetClaim().GetUser(), d.GetSpec().GetOwner())
	switch d.GetIncarnation().GetDesired() {
	case v1.DesiredState_DESIRED_STATE_SUSPENDED:
		if user == "" {
			return "suspended until it is needed"
		}
		return "suspended until " + user + " claims it"
	case v1.DesiredState_DESIRED_STATE_PREPARED:
		if user == "" {
			return "not needed yet"
		}
		return "not started until " + user + " claims it"
	}
	return ""
}

func hostWord(h *v1.Host) string {
	text := word(h.GetStatus().GetPhase())
	if text == "" {
		text = "NEVER SEEN"
	}
	if h.GetSpec().GetUnschedulable() {
		text += ", drained"
	}
	return text
}

// versionWord is an image with its version: "debian:3".
func versionWord(image string, version uint32) string {
	if image == "" {
		return ""
	}
	if version == 0 {
		return image + ":current"
	}
	return fmt.Sprintf("%s:%d", image, version)
}
