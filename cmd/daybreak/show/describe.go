package show

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// page is a description in the making: labelled lines, and sections with tables.
type page struct {
	text  bytes.Buffer
	lines [][2]string
	now   time.Time
}

// line adds "Label: value"; nothing for an empty value.
func (p *page) line(label, value string) {
	if value != "" {
		p.lines = append(p.lines, [2]string{label + ":", Clean(value)})
	}
}

// flush writes the lines gathered so far, aligned.
func (p *page) flush() {
	longest := 0
	for _, l := range p.lines {
		longest = max(longest, Width(l[0]))
	}
	for _, l := range p.lines {
		p.text.WriteString(l[0] + strings.Repeat(" ", longest-Width(l[0])+2) + l[1] + "\n")
	}
	p.lines = nil
}

// section adds a table under a title; nothing when it has no rows.
func (p *page) section(title string, t Table) {
	p.flush()
	if len(t.Rows) == 0 {
		return
	}
	p.text.WriteString("\n" + title + ":\n")
	var table bytes.Buffer
	if err := NewWriter(&table).Table(t); err != nil {
		return // a buffer takes everything
	}
	for line := range strings.Lines(table.String()) {
		p.text.WriteString("  " + line)
	}
}

func (p *page) head(meta *v1.Meta) {
	p.line("Name", meta.GetName())
	var labels []string
	for key, value := range meta.GetLabels() {
		labels = append(labels, key+"="+value)
	}
	slices.Sort(labels)
	p.line("Labels", strings.Join(labels, ", "))
	p.line("Created", Moment(p.now, meta.GetCreated()))
	if d := meta.GetDeletion(); d != nil {
		text := "asked for by " + d.GetBy() + ", " + Moment(p.now, d.GetRequested())
		if d.GetData() != 0 {
			text += "; data: " + strings.ToLower(word(d.GetData()))
		}
		p.line("Deletion", text)
	}
}

// events adds what happened, newest last.
func (p *page) events(events []*v1.Event) {
	t := Table{Header: []string{"WHEN", "REASON", "MESSAGE"}}
	for _, e := range events {
		reason := e.GetReason()
		if e.GetWarning() {
			reason = "! " + reason
		}
		t.Rows = append(t.Rows, []string{Age(p.now, e.GetAt()) + " ago", reason, e.GetMessage()})
	}
	p.section("Events", t)
}

func (p *page) writeTo(out io.Writer) error {
	p.flush()
	_, err := p.text.WriteTo(out)
	return err
}

// Desktop describes a desktop, with times in now's zone: where it is, what it is, since when, and why it is not ready.
func Desktop(out io.Writer, d *v1.Desktop, events []*v1.Event, now time.Time) error {
	p := &page{now: now}
	in := d.GetIncarnation()
	p.head(d.GetMeta())
	p.line("Pool", d.GetSpec().GetPool())
	p.line("Zone", d.GetSpec().GetZone())
	p.line("State", stateWord(d))
	if store.State(d) != v1.DesktopState_DESKTOP_STATE_READY {
		p.line("Not ready", orDash(Reason(d, now)))
	}
	p.line("Wanted", wantedWord(in, now))
	if user := d.GetClaim(); user != nil {
		text := user.GetUser() + ", since " + Moment(now, user.GetSince())
		if user.GetRestartAt() != nil {
			text += "; restarts with another version at " + Moment(now, user.GetRestartAt())
		}
		p.line("User", text)
		p.line("Idle", idleWord(user, now))
	}
	p.line("Owner", d.GetSpec().GetOwner())
	p.line("Host", in.GetHost())
	p.line("Image", versionWord(in.GetImage(), in.GetVersion()))
	p.line("Digest", in.GetDigest())
	p.line("Incarnation", fmt.Sprintf("generation %d, since %s", in.GetGeneration(), Moment(now, in.GetCreated())))
	p.line("Because", in.GetReason())
	cells := shapeCells(in.GetShape())
	p.line("Shape", cells[0]+" vCPU, "+cells[1]+" memory")
	p.line("Data disk", dataWord(d, cells[2]))
	p.line("MAC", d.GetSpec().GetMac())
	p.line("VM UUID", d.GetSpec().GetVmUuid())
	if probe := in.GetReadiness().GetProbe(); len(probe) > 0 {
		p.line("Probe", strings.Join(probe, " "))
	}
	if guest := store.Present(d).GetGuest(); guest != nil {
		p.line("Guest says", guestWord(guest))
	}
	p.line("In use", useWord(store.Present(d).GetSession(), now))
	if boot := store.Present(d).GetBoot(); boot != nil {
		p.line("Last boot", bootWord(boot))
	}
	p.section("Times", times(store.Course(d), now))
	p.events(events)
	return p.writeTo(out)
}

// useWord is what the guest says of its use, and when it did.
func useWord(s *v1.GuestSession, now time.Time) string {
	if s == nil {
		return ""
	}
	parts := []string{"the guest does not say who is logged in"}
	if s.GetUsersKnown() {
		parts[0] = count(s.GetUsers()) + " logged in"
	}
	if s.GetInputIdleSince() != nil {
		parts = append(parts, "not touched since "+Moment(now, s.GetInputIdleSince()))
	}
	return strings.Join(append(parts, "asked "+Moment(now, s.GetAsked())), ", ")
}

// bootWord is how a start went.
func bootWord(b *v1.BootReport) string {
	text := fmt.Sprintf("%s, one of %d at once", b.GetTook().AsDuration().Round(100*time.Millisecond), b.GetAtOnce())
	if b.GetReadBytes() > 0 {
		text += ", read " + Bytes(b.GetReadBytes())
	}
	return text
}

// idleWord is what is to be done about a desktop that is not used, or why nothing is.
func idleWord(c *v1.DesktopClaim, now time.Time) string {
	var parts []string
	if reclaim := c.GetReclaim(); reclaim != nil {
		text := strings.ToLower(strings.ReplaceAll(word(reclaim.GetAction()), "_", " "))
		if reclaim.GetActing() {
			text += ", for it was not used: "
		} else {
			text += " at " + Moment(now, reclaim.GetActAt()) + " unless it is used: "
		}
		parts = append(parts, text+reclaim.GetReason())
	}
	if busy := c.GetBusyUntil(); busy.AsTime().After(now) {
		parts = append(parts, "busy until "+Moment(now, busy))
	}
	return strings.Join(parts, "; ")
}

// wantedWord is the state that is wanted, and when.
func wantedWord(in *v1.Incarnation, now time.Time) string {
	text := word(in.GetDesired())
	if in.GetStartAt() != nil && text != "" {
		text += ", not before " + Moment(now, in.GetStartAt())
	}
	return text
}

func dataWord(d *v1.Desktop, size string) string {
	if size == "" {
		return ""
	}
	if host := d.GetSpec().GetDataHost(); host != "" {
		size += " on " + host
	}
	if user := d.GetSpec().GetDataUser(); user != "" {
		size += ", of " + user
	}
	return size
}

func guestWord(g *v1.GuestReport) string {
	var parts []string
	for _, part := range []struct{ label, value string }{
		{"hostname ", g.GetHostname()}, {"address ", strings.Join(g.GetAddresses(), " ")}, {"image version ", g.GetImageVersion()},
		{"boot ", g.GetBootNonce()}, {"agent ", g.GetAgentVersion()},
	} {
		if part.value != "" {
			parts = append(parts, part.label+part.value)
		}
	}
	return strings.Join(parts, ", ")
}

// times shows when each state was reached, and how long it took to get there from the one before.
func times(list []*v1.StateTime, now time.Time) Table {
	t := Table{Header: []string{"STATE", "REACHED", "AFTER"}}
	for i, at := range list {
		took := ""
		if i > 0 {
			took = Span(at.GetAt().AsTime().Sub(list[i-1].GetAt().AsTime()))
		}
		state := word(at.GetState())
		if slices.ContainsFunc(list[:i], func(before *v1.StateTime) bool { return before.GetState() == at.GetState() }) {
			state += " again"
		}
		t.Rows = append(t.Rows, []string{state, Moment(now, at.GetAt()), took})
	}
	return t
}

// Pool describes a pool, with times in now's zone, and lists the desktops of it that are not ready.
func Pool(out io.Writer, pool *v1.Pool, desktops []*v1.Desktop, events []*v1.Event, now time.Time) error {
	p := &page{now: now}
	spec, s := pool.GetSpec(), pool.GetStatus()
	p.head(pool.GetMeta())
	p.line("Image", versionWord(spec.GetImage(), spec.GetVersion()))
	p.line("Zone", spec.GetZone())
	p.line("Seats", count(spec.GetDesktops()))
	p.line("Desktops", countsWord(s))
	p.day(pool, now)
	p.line("Message", s.GetMessage())
	if s.GetHeldUntil() != nil && s.GetHeldUntil().AsTime().After(now) {
		p.line("Held until", Moment(now, s.GetHeldUntil()))
	}
	p.release(pool)
	cells := shapeCells(spec.GetShape())
	p.line("Shape", cells[0]+" vCPU, "+cells[1]+" memory")
	p.line("Data disk", cells[2])
	p.line("Calendar", spec.GetCalendar())
	p.policies(spec)
	if probe := spec.GetReadiness().GetProbe(); len(probe) > 0 {
		p.line("Probe", strings.Join(probe, " "))
	}
	t := Table{Header: []string{"NAME", "STATE", "HOST", "WHY"}}
	for _, d := range desktops {
		if store.State(d) != v1.DesktopState_DESKTOP_STATE_READY {
			t.Rows = append(t.Rows, []string{name(d), stateWord(d), d.GetIncarnation().GetHost(), Reason(d, now)})
		}
	}
	p.section("Not ready", t)
	p.events(events)
	return p.writeTo(out)
}

// Host describes a host and lists the desktops on it.
func Host(out io.Writer, host *v1.Host, desktops []*v1.Desktop, events []*v1.Event, now time.Time) error {
	p := &page{now: now}
	s, c, u := host.GetStatus(), host.GetStatus().GetCapacity(), host.GetStatus().GetUsage()
	p.head(host.GetMeta())
	p.line("Status", hostWord(host)+", since "+orDash(Moment(now, s.GetPhaseSince())))
	p.line("Message", s.GetMessage())
	p.line("Zones", strings.Join(s.GetZones(), ", "))
	if c != nil {
		p.line("CPUs", count(c.GetCpus()))
		p.line("Memory", fmt.Sprintf("%s, %s available, %s given to desktops", Bytes(c.GetMemoryMib()<<20), Bytes(u.GetMemoryAvailableMib()<<20), Bytes(u.GetRunningMemoryMib()<<20)))
		p.line("Store", fmt.Sprintf("%s, %s available", Bytes(c.GetStoreBytes()), Bytes(u.GetStoreAvailableBytes())))
		p.line("Boots", fmt.Sprintf("%d in flight, at most %s at once now and %d ever", u.GetBootsInFlight(), bootLimit(u), c.GetMaxBoots()))
		p.line("Virtualization", virt(c))
	}
	if u != nil {
		p.line("Running", count(u.GetRunning()))
		p.line("Held back", u.GetHeldBack())
		if build := u.GetBuildMemoryMib(); build > 0 {
			p.line("Builds", Bytes(build<<20)+" of memory taken, kept from desktops")
		}
		p.line("Pressure", fmt.Sprintf("CPU %.1f %%, memory %.1f %%, I/O %.1f %%", u.GetPsiCpu(), u.GetPsiMemory(), u.GetPsiIo()))
	}
	p.line("Agent", s.GetAgentVersion())
	p.line("libvirt", c.GetLibvirtVersion())
	p.line("QEMU", c.GetQemuVersion())
	p.line("Confined by", strings.Join(c.GetSecurityModels(), ", "))
	p.line("Boot id", s.GetBootId())
	p.section("Images", imagesOnHost(host))
	t := Table{Header: []string{"NAME", "STATE", "IMAGE", "USER"}}
	for _, d := range desktops {
		t.Rows = append(t.Rows, []string{name(d), stateWord(d), versionWord(d.GetIncarnation().GetImage(), d.GetIncarnation().GetVersion()), userWord(d)})
	}
	p.section("Desktops", t)
	t = Table{Header: []string{"DESKTOP", "GENERATION", "RUNNING"}}
	for _, o := range s.GetOrphans() {
		t.Rows = append(t.Rows, []string{o.GetDesktop(), count(o.GetGeneration()), fmt.Sprint(o.GetRunning())})
	}
	p.section("Orphans (nothing assigned them; they are kept)", t)
	t = Table{Header: []string{"DESKTOP", "SIZE"}}
	for _, k := range s.GetKeptDisks() {
		t.Rows = append(t.Rows, []string{k.GetDesktop(), Bytes(k.GetBytes())})
	}
	p.section("Kept data disks", t)
	p.events(events)
	return p.writeTo(out)
}

// imagesOnHost says which versions lie there and which are still to come.
func imagesOnHost(host *v1.Host) Table {
	t := Table{Header: []string{"DIGEST", "IMAGE", "THERE"}}
	wanted := map[string]string{}
	for _, w := range host.GetWantedImages() {
		wanted[w.GetDigest()] = w.GetImage()
		if !slices.Contains(host.GetStatus().GetImages(), w.GetDigest()) {
			t.Rows = append(t.Rows, []string{short(w.GetDigest()), w.GetImage(), "not yet"})
		}
	}
	for _, digest := range host.GetStatus().GetImages() {
		t.Rows = append(t.Rows, []string{short(digest), wanted[digest], "verified"})
	}
	return t
}

func short(digest string) string {
	return digest[:min(len(digest), 16)]
}

// Image describes an image and its versions.
func Image(out io.Writer, image *v1.Image, events []*v1.Event, now time.Time) error {
	p := &page{now: now}
	p.head(image.GetMeta())
	p.line("Display name", image.GetSpec().GetDisplayName())
	p.line("Description", image.GetSpec().GetDescription())
	if current := image.GetStatus().GetCurrent(); current != 0 {
		p.line("Current", count(current))
	} else {
		p.line("Current", "none: nothing is published yet")
	}
	p.section("Versions", Versions(image, nil, false, now))
	p.events(events)
	return p.writeTo(out)
}
