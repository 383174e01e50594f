package show

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Objects makes the table of objects of one kind. now is when it is, in the zone of whoever reads it.
func Objects(kind v1.Kind, objects []store.Object, wide bool, now time.Time) Table {
	t := Table{Header: header(kind, wide)}
	for _, o := range objects {
		t.Rows = append(t.Rows, row(o, wide, now))
	}
	return t
}

func header(kind v1.Kind, wide bool) []string {
	narrow, more := columnNames(kind)
	if wide {
		return slices.Concat(narrow, more)
	}
	return narrow
}

// columnNames are the columns of a kind, and those that "wide" adds.
func columnNames(kind v1.Kind) (narrow, wide []string) {
	cut := func(text string) []string { return strings.Split(text, "|") }
	switch kind {
	case v1.Kind_KIND_ZONE:
		return cut("NAME|DISPLAY NAME|AGE"), cut("DESCRIPTION")
	case v1.Kind_KIND_HOST:
		return cut("NAME|STATUS|RUNNING|CPUS|MEMORY|STORE FREE|ZONES|AGE"), cut("BOOTS/LIMIT/MOST|GIVEN|HELD BACK|PRESSURE CPU/MEM/IO|VIRT|AGENT|LIBVIRT|QEMU|MESSAGE")
	case v1.Kind_KIND_IMAGE:
		return cut("NAME|CURRENT|VERSIONS|SIZE|DISPLAY NAME|AGE"), cut("DIGEST|NOTE")
	case v1.Kind_KIND_POOL:
		return cut("NAME|IMAGE|ZONE|SEATS|WANTED|READY|FREE|STARTING|COLD|FAILED|CLAIMED|AGE"),
			cut("SUSPENDED|QUEUED|NEXT DEADLINE|NEXT TARGET|SHORT|VCPUS|MEMORY|DATA|CALENDAR|MESSAGE")
	case v1.Kind_KIND_DESKTOP:
		return cut("NAME|STATE|HOST|IMAGE|USER|AGE"), cut("ZONE|ADDRESS|GENERATION|SINCE|WHY NOT READY")
	case v1.Kind_KIND_CALENDAR:
		return cut("NAME|TIME ZONE|OPEN|HOLIDAYS|BLACKOUTS|AGE"), cut("OPENINGS|PARENT")
	case v1.Kind_KIND_ROLLOUT:
		return cut("NAME|POOL|FROM|TO|PHASE|WAVE|MOVED|FAILED|AGE"), cut("IN USE|DONE ABOUT|BECAUSE|MESSAGE")
	case v1.Kind_KIND_CLAIM:
		return cut("USER|POOL|DESKTOP|SINCE"), cut("WAITED|NAME")
	case v1.Kind_KIND_EVENT:
		return cut("WHEN|OBJECT|REASON|MESSAGE"), cut("NAME")
	case v1.Kind_KIND_JOIN_TOKEN:
		return cut("NAME|ROLE|FOR|EXPIRES"), nil
	case v1.Kind_KIND_PLAN:
		return cut("NAME|POOL|DATE|STARTS|FIRST|LAST|READY|SHORT|MADE"), cut("TARGETS|WHY SHORT")
	case v1.Kind_KIND_HISTORY:
		return cut("POOL|DAYS|SINCE|MOST USERS|STARTS|A START TOOK"), cut("VERSIONS|HOST CLASSES")
	}
	return []string{"NAME"}, nil
}

func row(o store.Object, wide bool, now time.Time) []string {
	var narrow, more []string
	switch o := o.(type) {
	case *v1.Zone:
		narrow, more = []string{name(o), o.GetSpec().GetDisplayName(), age(o, now)}, []string{o.GetSpec().GetDescription()}
	case *v1.Host:
		narrow, more = hostRow(o, now)
	case *v1.Image:
		narrow, more = imageRow(o, now)
	case *v1.Pool:
		narrow, more = poolRow(o, now)
	case *v1.Desktop:
		narrow, more = desktopRow(o, now)
	case *v1.Calendar:
		narrow, more = calendarRow(o, now)
	case *v1.Rollout:
		narrow, more = rolloutRow(o, now)
	case *v1.Claim:
		narrow, more = claimRow(o, now)
	case *v1.Event:
		reason := o.GetReason()
		if o.GetWarning() {
			reason = "! " + reason
		}
		narrow, more = []string{Age(now, o.GetAt()) + " ago", o.GetSubjectKind() + "/" + o.GetSubject(), reason, o.GetMessage()}, []string{name(o)}
	case *v1.JoinToken:
		narrow = []string{name(o), strings.ToLower(word(o.GetRole())), o.GetSubject(), Moment(now, o.GetExpires())}
	case *v1.Plan:
		narrow, more = planRow(o, now)
	case *v1.History:
		narrow, more = historyRow(o)
	}
	if wide {
		return slices.Concat(narrow, more)
	}
	return narrow
}

func name(o store.Object) string {
	return o.GetMeta().GetName()
}

func age(o store.Object, now time.Time) string {
	return Age(now, o.GetMeta().GetCreated())
}

// Claims is Objects for claims, with the places in their queues of those that wait. all has every claim of their pools.
func Claims(claims, all []store.Object, wide bool, now time.Time) Table {
	t := Objects(v1.Kind_KIND_CLAIM, claims, wide, now)
	place := places(all)
	for i, o := range claims {
		if c, ok := o.(*v1.Claim); ok && place[name(c)] > 0 {
			t.Rows[i][2] = fmt.Sprintf("waiting, place %d", place[name(c)])
		}
	}
	return t
}

// places numbers the claims that wait in each pool, in the order in which they are served: who waits longest is first.
func places(all []store.Object) map[string]int {
	var queue []*v1.Claim
	for _, o := range all {
		if c, ok := o.(*v1.Claim); ok && c.GetDesktop() == "" {
			queue = append(queue, c)
		}
	}
	slices.SortFunc(queue, func(a, b *v1.Claim) int {
		return cmp.Or(a.GetQueued().AsTime().Compare(b.GetQueued().AsTime()), cmp.Compare(name(a), name(b)))
	})
	place, last := map[string]int{}, map[string]int{}
	for _, c := range queue {
		last[c.GetPool()]++
		place[name(c)] = last[c.GetPool()]
	}
	return place
}

// claimRow shows who holds what since when, or since when they wait.
func claimRow(c *v1.Claim, now time.Time) (narrow, wide []string) {
	narrow, wide = []string{c.GetUser(), c.GetPool(), c.GetDesktop(), ""}, []string{"", name(c)}
	switch queued, since := c.GetQueued(), c.GetSince(); {
	case c.GetDesktop() == "":
		narrow[2], wide[0] = "waiting", Age(now, queued)
		narrow[3] = Age(now, queued) + " ago"
	case since != nil:
		narrow[3] = Age(now, since) + " ago"
		if queued != nil {
			wide[0] = Age(since.AsTime(), queued)
		}
	}
	return narrow, wide
}

func count[N int | uint32 | int64](n N) string {
	return fmt.Sprint(n)
}

func hostRow(h *v1.Host, now time.Time) (narrow, wide []string) {
	s, c, u := h.GetStatus(), h.GetStatus().GetCapacity(), h.GetStatus().GetUsage()
	narrow = []string{name(h), hostWord(h), "", "", "", "", strings.Join(s.GetZones(), ","), age(h, now)}
	if c != nil {
		narrow[3], narrow[4] = count(c.GetCpus()), Bytes(c.GetMemoryMib()<<20)
	}
	if u != nil {
		narrow[2], narrow[5] = count(u.GetRunning()), Bytes(u.GetStoreAvailableBytes())
	}
	wide = []string{
		fmt.Sprintf("%d/%s/%d", u.GetBootsInFlight(), bootLimit(u), c.GetMaxBoots()),
		Bytes((u.GetRunningMemoryMib() + u.GetBuildMemoryMib()) << 20), u.GetHeldBack(),
		fmt.Sprintf("%.0f/%.0f/%.0f%%", u.GetPsiCpu(), u.GetPsiMemory(), u.GetPsiIo()),
		virt(c), s.GetAgentVersion(), c.GetLibvirtVersion(), c.GetQemuVersion(), s.GetMessage(),
	}
	return narrow, wide
}

// bootLimit is how many may boot at once now, where the agent says so.
func bootLimit(u *v1.HostUsage) string {
	if u.GetBootLimit() == 0 {
		return "-"
	}
	return count(u.GetBootLimit())
}

func virt(c *v1.HostCapacity) string {
	switch {
	case c.GetKvm():
		return "KVM"
	case c.GetEmulation():
		return "emulated"
	}
	return ""
}

func imageRow(i *v1.Image, now time.Time) (narrow, wide []string) {
	narrow = []string{name(i), "", count(len(i.GetStatus().GetVersions())), "", i.GetSpec().GetDisplayName(), age(i, now)}
	wide = []string{"", ""}
	if v := store.Version(i, i.GetStatus().GetCurrent()); v != nil {
		narrow[1], narrow[3] = count(v.GetNumber()), Bytes(v.GetSizeBytes())
		wide = []string{v.GetDigest(), v.GetNote()}
	}
	return narrow, wide
}

func poolRow(p *v1.Pool, now time.Time) (narrow, wide []string) {
	spec, s := p.GetSpec(), p.GetStatus()
	narrow = []string{
		name(p), versionWord(spec.GetImage(), spec.GetVersion()), spec.GetZone(), count(spec.GetDesktops()), count(s.GetWanted()), count(s.GetReady()),
		count(s.GetFree()), count(s.GetStarting()), count(s.GetCold()), count(s.GetFailed()), count(s.GetClaimed()), age(p, now),
	}
	if spec.GetSchedule() == nil && s.GetWanted() == 0 { // all seats, always; a status from before says nothing of it
		narrow[4] = count(spec.GetDesktops())
	}
	if p.GetMeta().GetDeletion() != nil {
		narrow[3] = "going"
	}
	wide = []string{count(s.GetSuspended()), count(s.GetQueued()), "", "", ""}
	if s.GetNextDeadline() != nil {
		wide[2], wide[3], wide[4] = Moment(now, s.GetNextDeadline()), count(s.GetNextTarget()), count(s.GetNextShortfall())
	}
	wide = append(wide, shapeCells(spec.GetShape())...)
	wide = append(wide, spec.GetCalendar(), s.GetMessage())
	return narrow, wide
}

// shapeCells are vCPUs, memory and data disk, with the defaults that the API promises.
func shapeCells(s *v1.Shape) []string {
	vcpus, memory, data := s.GetVcpus(), s.GetMemoryMib(), ""
	if vcpus == 0 {
		vcpus = 1
	}
	if memory == 0 {
		memory = 1024
	}
	if s.GetDataDiskGib() > 0 {
		data = Bytes(uint64(s.GetDataDiskGib()) << 30)
	}
	return []string{count(vcpus), Bytes(uint64(memory) << 20), data}
}

func desktopRow(d *v1.Desktop, now time.Time) (narrow, wide []string) {
	in := d.GetIncarnation()
	narrow = []string{name(d), stateWord(d), in.GetHost(), versionWord(in.GetImage(), in.GetVersion()), userWord(d), Age(now, in.GetCreated())}
	if in == nil {
		narrow[1] = "NEW"
	}
	since := ""
	// An older agent tells only the first time of each state: not since when a desktop that was suspended runs again.
	if times := store.Course(d); len(times) > 0 && times[len(times)-1].GetState() == store.State(d) {
		since = Age(now, times[len(times)-1].GetAt())
	}
	wide = []string{d.GetSpec().GetZone(), strings.Join(d.GetStatus().GetGuest().GetAddresses(), ","), count(in.GetGeneration()), since, Reason(d, now)}
	return narrow, wide
}

// userWord is who holds a desktop; in brackets whom it belongs to while nobody does.
func userWord(d *v1.Desktop) string {
	if owner := d.GetSpec().GetOwner(); d.GetClaim() == nil && owner != "" {
		return "(" + owner + ")"
	}
	return d.GetClaim().GetUser()
}

func calendarRow(c *v1.Calendar, now time.Time) (narrow, wide []string) {
	spec := c.GetSpec()
	// The sets, and how many days stand beside them: "jp", "jp+2", "2".
	holidays := slices.Clone(spec.GetHolidaySets())
	if n := len(spec.GetHolidays()); n > 0 || len(holidays) == 0 {
		holidays = append(holidays, count(n))
	}
	open := hours(spec.GetHours())
	if open == "" && spec.GetParent() != "" {
		open = "as " + spec.GetParent()
	}
	narrow = []string{name(c), spec.GetTimeZone(), open, strings.Join(holidays, "+"), count(len(spec.GetBlackouts())), age(c, now)}
	return narrow, []string{count(len(spec.GetOpenings())), spec.GetParent()}
}

// hours is a calendar's opening in few words: "Mon-Fri 08:30-17:15".
func hours(list []*v1.OfficeHours) string {
	var parts []string
	for _, h := range list {
		parts = append(parts, days(h.GetDays())+" "+h.GetOpen()+"-"+h.GetClose())
	}
	return strings.Join(parts, ", ")
}

// days names weekdays, runs of three and more as a span.
func days(list []v1.Weekday) string {
	short := func(d v1.Weekday) string {
		w := word(d)
		if len(w) < 3 {
			return w
		}
		return w[:1] + strings.ToLower(w[1:3])
	}
	sorted := slices.Sorted(slices.Values(list))
	var parts []string
	for i := 0; i < len(sorted); {
		end := i
		for end+1 < len(sorted) && sorted[end+1] == sorted[end]+1 {
			end++
		}
		if end-i >= 2 {
			parts = append(parts, short(sorted[i])+"-"+short(sorted[end]))
			i = end + 1
			continue
		}
		parts = append(parts, short(sorted[i]))
		i++
	}
	return strings.Join(parts, ",")
}
