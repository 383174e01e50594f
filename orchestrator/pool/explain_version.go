package pool

import (
	"fmt"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxWaiting is how many desktops that wait for their users are named.
const maxWaiting = 5

// rolloutNews tells how far the pool's move to another version is; none when nothing moves.
func (d *decision) rolloutNews(view *store.View) []string {
	release := d.Pool.GetRelease()
	rollout, ok := store.Lookup[*v1.Rollout](view, release.GetRollout())
	if !ok {
		return d.givenUp(view)
	}
	to, word := rollout.GetSpec().GetToVersion(), "rollout"
	if rollout.GetSpec().GetRollback() {
		word = "rollback"
	}
	have, waiting := 0, []string{}
	for _, desktop := range d.Desktops {
		inc := desktop.GetIncarnation()
		switch {
		case d.isOver(desktop):
		case inc.GetImage() == d.Pool.GetSpec().GetImage() && inc.GetVersion() == to:
			have++
		case desktop.GetClaim() != nil:
			waiting = append(waiting, fmt.Sprintf("%s (%s)", desktop.GetMeta().GetName(), desktop.GetClaim().GetUser()))
		}
	}
	text := fmt.Sprintf("%s %s to version %d: %d of %s run it", word, release.GetRollout(), to, have, plural(len(d.Desktops), "desktop"))
	if release.GetNext() != 0 {
		text += fmt.Sprintf(", %d %s admitted to it", release.GetAdmitted(), are(int(release.GetAdmitted())))
	}
	if message := rollout.GetStatus().GetMessage(); message != "" {
		text += "; " + message
	}
	lines := []string{text}
	if n := len(waiting); n > 0 {
		if n > maxWaiting {
			waiting = append(waiting[:maxWaiting], fmt.Sprintf("and %d more", n-maxWaiting))
		}
		lines = append(lines, fmt.Sprintf("%s on another version %s in use: %s", plural(n, "desktop"), are(n), strings.Join(waiting, ", ")))
	}
	return lines
}

// givenUp tells that the pool stays behind the image's current version since that was rolled back here.
func (d *decision) givenUp(view *store.View) []string {
	pool, name := d.Pool.GetSpec(), d.Pool.GetSpec().GetImage()
	image, _ := store.Lookup[*v1.Image](view, name)
	current, refused := image.GetStatus().GetCurrent(), d.Pool.GetRelease().GetRefused()
	if pool.GetVersion() != 0 || refused == 0 || refused != current {
		return nil
	}
	return []string{fmt.Sprintf("version %d of image %s is current but was rolled back here, and the pool stays with version %d: \"daybreak rollout start %s\" tries it again",
		current, name, d.Pool.GetRelease().GetVersion(), d.Pool.GetMeta().GetName())}
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// versionNews says why a desktop runs the version that it runs, when the pool has more than one, and when that changes.
func (d *decision) versionNews(view *store.View, desktop *v1.Desktop) string {
	release, inc := d.Pool.GetRelease(), desktop.GetIncarnation()
	wanted, t := release.GetVersion(), d.base
	if release.GetNext() != 0 {
		wanted, t = release.GetNext(), d.next
	}
	sameImage := inc.GetImage() == d.Pool.GetSpec().GetImage()
	switch {
	case wanted == 0 || d.deletion(desktop) != nil || d.isOver(desktop) || inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
		return ""
	case sameImage && inc.GetVersion() == wanted && release.GetNext() != 0:
		return fmt.Sprintf("it has version %d, which is being rolled out (%s)", wanted, release.GetRollout())
	case sameImage && inc.GetVersion() == wanted:
		return ""
	}
	text := fmt.Sprintf("it has version %d of image %s, and is to have version %d of image %s: ", inc.GetVersion(), inc.GetImage(),
		wanted, d.Pool.GetSpec().GetImage())
	switch {
	case t.version == nil:
		return text + t.why
	case t.held(d.now):
		return text + fmt.Sprintf("not before %s, since too many failed in a row", clock(d.Clock, t.hold.until))
	case t.tried:
		return text + "once the one that tries it first is ready"
	case d.slots(nil) <= 0 && desktop.GetClaim().GetRestartAt() == nil:
		return text + fmt.Sprintf("it waits for a later wave; %d %s admitted so far", release.GetAdmitted(), are(int(release.GetAdmitted()))) + rolloutMessage(view, release)
	case !release.GetMoving():
		return text + "it is made anew with it when its user releases it, when it fails, or when the rollout goes on" + rolloutMessage(view, release)
	case desktop.GetClaim() != nil:
		return text + d.patience(desktop)
	case store.State(desktop) == v1.DesktopState_DESKTOP_STATE_LOST:
		return text + "when its host is back"
	}
	return text + d.nextToMove(desktop)
}

func rolloutMessage(view *store.View, release *v1.Release) string {
	rollout, ok := store.Lookup[*v1.Rollout](view, release.GetRollout())
	if message := rollout.GetStatus().GetMessage(); ok && message != "" {
		return " (" + message + ")"
	}
	return ""
}

// patience says when a claimed desktop is restarted.
func (d *decision) patience(desktop *v1.Desktop) string {
	p, claim := inUseOf(d.Pool), desktop.GetClaim()
	at, _ := p.restartAt(d.now, claim)
	switch {
	case claim.GetRestartAt() != nil:
		text := fmt.Sprintf("%s, who holds it, was told that it restarts at %s", claim.GetUser(), clock(d.Clock, claim.GetRestartAt().AsTime()))
		if left := p.left(claim); left > 0 {
			text += fmt.Sprintf(", and can put that off %s", times(left))
		}
		return text
	case !at.IsZero():
		return fmt.Sprintf("%s, who holds it, will be told to save their work when its turn comes, %v before it restarts", claim.GetUser(), p.notice)
	case !p.force.IsZero():
		return fmt.Sprintf("when %s releases it, at the latest at %s", claim.GetUser(), clock(d.Clock, later(p.force, d.now.Add(p.notice))))
	}
	return fmt.Sprintf("when %s releases it", claim.GetUser())
}

// nextToMove says what a desktop that nobody holds waits for.
func (d *decision) nextToMove(desktop *v1.Desktop) string {
	switch {
	case rankOf(desktop) == rankFree && d.spare(nil) <= 0:
		return fmt.Sprintf("it waits until more than minReady=%d ready desktops are free", d.Pool.GetSpec().GetMinReady())
	case d.budget() <= 0:
		return fmt.Sprintf("it waits until fewer than maxUnavailable=%d are out of service", d.limit())
	}
	return "now"
}

// clockFor writes when a claim's restart is, for the summary of a desktop; "" when none is announced.
func (d *decision) clockFor(claim *v1.DesktopClaim) string {
	if claim.GetRestartAt() == nil {
		return ""
	}
	return fmt.Sprintf("; it will be restarted at %s", clock(d.Clock, claim.GetRestartAt().AsTime().Truncate(time.Second)))
}
