package show_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files anew")
	flag.Parse()
	os.Exit(m.Run())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", name, diff)
	}
}

// tokyo is when and where the tests are.
func tokyo() time.Time {
	return time.Date(2026, 11, 24, 8, 30, 0, 0, time.FixedZone("JST", 9*3600))
}

func before(d time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(tokyo().Add(-d))
}

func meta(name string, age time.Duration) *v1.Meta {
	return &v1.Meta{Name: name, Created: before(age)}
}

func host() *v1.Host {
	return &v1.Host{
		Meta: meta("kvm1", 40*24*time.Hour),
		Spec: &v1.HostSpec{Unschedulable: true},
		Status: &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, PhaseSince: before(2 * time.Hour), Zones: []string{"internet", "lgwan"},
			Capacity: &v1.HostCapacity{Cpus: 64, MemoryMib: 256 << 10, StoreBytes: 2 << 40, MaxBoots: 8, Kvm: true, LibvirtVersion: "9.0.0", QemuVersion: "7.2.22",
				SecurityModels: []string{"apparmor", "dac"}},
			Usage:   &v1.HostUsage{StoreAvailableBytes: 1234567890123, MemoryAvailableMib: 100 << 10, BootsInFlight: 3, BootLimit: 4, RunningMemoryMib: 12288, HeldBack: "2 desktops wait: at most 4 boot at once", Running: 41, PsiCpu: 1.25, PsiIo: 40},
			Images:  []string{"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
			Orphans: []*v1.Orphan{{Desktop: "old-1", Generation: 12, Running: true}},
			BootId:  "b00t", AgentVersion: "1.0",
		},
		WantedImages: []*v1.WantedImage{{Image: "debian", Digest: "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"}},
	}
}

func desktops() []*v1.Desktop {
	in := func(generation int64, host string) *v1.Incarnation {
		return &v1.Incarnation{
			Generation: generation, Image: "debian", Version: 3, Host: host, Desired: v1.DesiredState_DESIRED_STATE_READY,
			Created: before(200 * time.Second), Reason: "new", Shape: &v1.Shape{Vcpus: 2, MemoryMib: 2048, DataDiskGib: 20},
			Readiness: &v1.Readiness{Probe: []string{"test", "-e", "/run/ready"}},
		}
	}
	spec := func() *v1.DesktopSpec {
		return &v1.DesktopSpec{Pool: "eigyo", Zone: "internet", Mac: "52:54:00:aa:bb:cc", VmUuid: "11111111-2222-4333-8444-555555555555", DataHost: "kvm1"}
	}
	ready := &v1.Desktop{
		Meta: meta("eigyo-1", time.Hour), Spec: spec(), Incarnation: in(41, "kvm1"),
		Claim: &v1.DesktopClaim{User: "山田 太郎", Since: before(5 * time.Minute)},
		Status: &v1.DesktopStatus{
			Generation: 41, State: v1.DesktopState_DESKTOP_STATE_READY,
			Times: []*v1.StateTime{
				{State: v1.DesktopState_DESKTOP_STATE_PREPARING, At: before(190 * time.Second)},
				{State: v1.DesktopState_DESKTOP_STATE_STARTING, At: before(188500 * time.Millisecond)},
				{State: v1.DesktopState_DESKTOP_STATE_READY, At: before(100 * time.Second)},
			},
			Guest:   &v1.GuestReport{Hostname: "eigyo-1", Addresses: []string{"10.0.0.7"}, ImageVersion: "3\x1b[31m", BootNonce: "abc"},
			Session: &v1.GuestSession{Asked: before(time.Minute), UsersKnown: true, Users: 1, InputIdleSince: before(31 * time.Minute)},
			Boot:    &v1.BootReport{Took: durationpb.New(88500 * time.Millisecond), AtOnce: 3, ReadBytes: 412 << 20},
		},
	}
	fetching := &v1.Desktop{
		Meta: meta("eigyo-2", time.Hour), Spec: spec(), Incarnation: in(42, "kvm2"),
		Status: &v1.DesktopStatus{Generation: 42, State: v1.DesktopState_DESKTOP_STATE_PREPARING, ProgressPercent: 45, Message: "fetching version 3"},
	}
	fetching.Spec.Owner = "佐藤 花子"
	// Its status is an earlier incarnation's and must not be shown as this one's.
	stale := &v1.Desktop{
		Meta: meta("eigyo-3", time.Hour), Spec: spec(), Incarnation: in(50, ""),
		Status: &v1.DesktopStatus{Generation: 43, State: v1.DesktopState_DESKTOP_STATE_READY},
	}
	stale.Incarnation.UnplacedReason = "no host of zone internet has 2.0 GiB of memory free"
	going := &v1.Desktop{
		Meta: meta("eigyo-4", time.Hour), Spec: spec(), Incarnation: in(44, "kvm1"),
		Status: &v1.DesktopStatus{Generation: 44, State: v1.DesktopState_DESKTOP_STATE_STOPPING, PausedIo: true},
	}
	going.Meta.Deletion = &v1.Deletion{By: "admin", Requested: before(10 * time.Second), Data: v1.DataDisposal_DATA_DISPOSAL_KEEP}
	return []*v1.Desktop{ready, fetching, stale, going}
}

func pool() *v1.Pool {
	return &v1.Pool{
		Meta:   &v1.Meta{Name: "eigyo", Created: before(26 * time.Hour), Labels: map[string]string{"floor": "3", "dept": "営業課"}},
		Spec:   &v1.PoolSpec{Image: "debian", Zone: "internet", Desktops: 4, Shape: &v1.Shape{DataDiskGib: 20}, Calendar: "townhall"},
		Status: &v1.PoolStatus{Desktops: 4, Ready: 1, Starting: 2, Failed: 1, Claimed: 1, Message: "1 desktop failed twice", HeldUntil: timestamppb.New(tokyo().Add(90 * time.Second))},
	}
}

func image() *v1.Image {
	return &v1.Image{
		Meta: meta("debian", 100*24*time.Hour), Spec: &v1.ImageSpec{DisplayName: "標準デスクトップ"},
		Status: &v1.ImageStatus{Current: 2, Versions: []*v1.ImageVersion{
			{Number: 1, Digest: "aa", SizeBytes: 20 << 30, StoredBytes: 3 << 30, State: v1.VersionState_VERSION_STATE_RETIRED, Created: before(90 * 24 * time.Hour), By: "admin", Note: "最初の版"},
			{Number: 2, Digest: "bb", SizeBytes: 20 << 30, StoredBytes: 9961472, State: v1.VersionState_VERSION_STATE_READY, Parent: 1, Created: before(3 * time.Hour), By: "admin"},
			{Number: 3, Digest: "cc", SizeBytes: 20 << 30, StoredBytes: 512, State: v1.VersionState_VERSION_STATE_DRAFT, Parent: 2, Created: before(time.Minute), By: "suzuki"},
		}},
	}
}

func events() []*v1.Event {
	return []*v1.Event{
		{Meta: meta("e1", time.Hour), At: before(time.Hour), SubjectKind: "pool", Subject: "eigyo", Reason: "DesktopCreated", Message: "made eigyo-4"},
		{Meta: meta("e2", time.Minute), At: before(time.Minute), SubjectKind: "desktop", Subject: "eigyo-2", Reason: "DesktopFailed", Message: "line one\nline two", Warning: true},
	}
}

func rollouts() []*v1.Rollout {
	return []*v1.Rollout{
		{
			Meta: meta("eigyo-3", time.Hour),
			Spec: &v1.RolloutSpec{Pool: "eigyo", Image: "debian", FromVersion: 2, ToVersion: 3, Reason: "version 3 of image debian was published", Paused: true},
			Status: &v1.RolloutStatus{
				Phase: v1.RolloutPhase_ROLLOUT_PHASE_HALTED, PhaseSince: before(5 * time.Minute), Started: before(time.Hour), Wave: 2, Waves: 4,
				Admitted: 3, Moved: 3, Total: 40, InUse: 4, Failed: 2, Accepted: 1, Message: "halted: 2 failures with version 3",
				Failures: []*v1.RolloutFailure{{Desktop: "eigyo-2", Generation: 42, Host: "kvm1", Message: "the guest did not answer", At: before(6 * time.Minute)}},
			},
		},
		{
			Meta: meta("eigyo-4", time.Minute),
			Spec: &v1.RolloutSpec{Pool: "eigyo", Image: "debian", FromVersion: 3, ToVersion: 2, Rollback: true, By: "taro", Reason: "the printer is gone"},
			Status: &v1.RolloutStatus{
				Phase: v1.RolloutPhase_ROLLOUT_PHASE_RUNNING, PhaseSince: before(time.Minute), Started: before(time.Minute), Wave: 1, Waves: 1,
				Moved: 38, Total: 40, Message: "38 of 40 desktops run version 2 and are ready", EstimatedEnd: before(-3 * time.Minute),
			},
		},
	}
}

// movingPool is a pool in the middle of a rollout.
func movingPool() *v1.Pool {
	p := pool()
	p.Spec.Desktops, p.Spec.MinReady = 40, 5
	p.Spec.Rollout = &v1.RolloutPolicy{
		Window: &v1.Window{From: "22:00", To: "05:00", TimeZone: "Asia/Tokyo"}, OnFailure: v1.OnFailure_ON_FAILURE_ROLL_BACK,
		InUse: &v1.InUse{Mode: v1.InUseMode_IN_USE_MODE_REMIND, Deferrals: 2, Deadline: durationpb.New(72 * time.Hour)},
	}
	p.Release = &v1.Release{Image: "debian", Version: 2, Previous: 1, Next: 3, Admitted: 4, Moving: true, Rollout: "eigyo-3"}
	p.Status.Versions = []*v1.VersionCount{{Version: 2, Desktops: 36, Ready: 35}, {Version: 3, Desktops: 4, Ready: 4}}
	return p
}

func history() *v1.History {
	h := &v1.History{Meta: meta("counter", 30*24*time.Hour), Days: []*v1.DayHistory{
		{Date: "2026-11-20", Claimed: []uint32{0, 3, 9, 4}, Arrivals: []uint32{0, 3, 6, 0}, Watched: 288}, {Date: "2026-11-23", Watched: 144},
	}}
	for i := range 5 {
		h.Boots = append(h.Boots, &v1.BootSample{Digest: "bb", HostClass: "EPYC ×64, 256 GiB, KVM", Took: durationpb.New(time.Duration(20+i) * time.Second)})
	}
	return h
}

func tables() map[v1.Kind][]store.Object {
	all := map[v1.Kind][]store.Object{
		v1.Kind_KIND_ZONE: {
			&v1.Zone{Meta: meta("internet", time.Hour), Spec: &v1.ZoneSpec{DisplayName: "インターネット系", Description: "外部接続"}},
			&v1.Zone{Meta: meta("lgwan", 90*time.Second), Spec: &v1.ZoneSpec{DisplayName: "LGWAN"}},
		},
		v1.Kind_KIND_HOST:  {host(), &v1.Host{Meta: meta("kvm2", time.Second)}},
		v1.Kind_KIND_IMAGE: {image(), &v1.Image{Meta: meta("empty", 0)}},
		v1.Kind_KIND_POOL:  {pool()},
		v1.Kind_KIND_CALENDAR: {&v1.Calendar{Meta: meta("townhall", time.Hour), Spec: &v1.CalendarSpec{
			TimeZone: "Asia/Tokyo", Hours: []*v1.OfficeHours{{Days: []v1.Weekday{5, 1, 2, 3, 4}, Open: "08:30", Close: "17:15"}, {Days: []v1.Weekday{6}, Open: "09:00", Close: "12:00"}},
			Holidays: []*v1.CalendarDay{{Date: "2026-11-23"}},
		}}},
		v1.Kind_KIND_ROLLOUT:    {rollouts()[0], rollouts()[1]},
		v1.Kind_KIND_CLAIM:      {&v1.Claim{Meta: meta("c1", time.Hour), Pool: "eigyo", User: "山田 太郎", Desktop: "eigyo-1", Since: before(5 * time.Minute)}},
		v1.Kind_KIND_PLAN:       {morning(), allDay()},
		v1.Kind_KIND_HISTORY:    {history()},
		v1.Kind_KIND_JOIN_TOKEN: {&v1.JoinToken{Meta: meta("abc", 0), Role: v1.Role_ROLE_HOST, Subject: "kvm3", Expires: timestamppb.New(tokyo().Add(time.Hour))}},
	}
	for _, d := range desktops() {
		all[v1.Kind_KIND_DESKTOP] = append(all[v1.Kind_KIND_DESKTOP], d)
	}
	for _, e := range events() {
		all[v1.Kind_KIND_EVENT] = append(all[v1.Kind_KIND_EVENT], e)
	}
	return all
}

func TestTables(t *testing.T) {
	var out bytes.Buffer
	all := tables()
	for _, kind := range store.Kinds() {
		for _, wide := range []bool{false, true} {
			table := show.Objects(kind, all[kind], wide, tokyo())
			for _, row := range table.Rows {
				if len(row) != len(table.Header) {
					t.Errorf("%v: %d cells under %d headings", kind, len(row), len(table.Header))
				}
			}
			if err := show.NewWriter(&out).Table(table); err != nil {
				t.Fatal(err)
			}
			out.WriteString("\n")
		}
	}
	golden(t, "tables.txt", out.Bytes())
}

func TestDescriptions(t *testing.T) {
	var out bytes.Buffer
	for _, d := range desktops() {
		if err := show.Desktop(&out, d, events()[1:], tokyo()); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n----\n")
	}
	if err := show.Pool(&out, pool(), desktops(), events()[:1], tokyo()); err != nil {
		t.Fatal(err)
	}
	out.WriteString("\n----\n")
	if err := show.Host(&out, host(), desktops()[:1], nil, tokyo()); err != nil {
		t.Fatal(err)
	}
	out.WriteString("\n----\n")
	if err := show.Image(&out, image(), nil, tokyo()); err != nil {
		t.Fatal(err)
	}
	for _, r := range rollouts() {
		out.WriteString("\n----\n")
		if err := show.Rollout(&out, r, movingPool(), events()[:1], tokyo()); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("\n----\n")
	if err := show.Pool(&out, movingPool(), nil, nil, tokyo()); err != nil {
		t.Fatal(err)
	}
	out.WriteString("\n----\n")
	if err := show.History(&out, history(), tokyo()); err != nil {
		t.Fatal(err)
	}
	golden(t, "descriptions.txt", out.Bytes())
}

// Who waits sees the place in their own pool's queue, whatever else is listed.
func TestClaimsTellPlaces(t *testing.T) {
	waiting := func(claim, pool string, since time.Duration) store.Object {
		return &v1.Claim{Meta: meta(claim, since), Pool: pool, User: claim, Queued: before(since)}
	}
	holds := &v1.Claim{Meta: meta("d", time.Hour), Pool: "sales", User: "d", Desktop: "sales-1", Since: before(time.Hour), Queued: before(2 * time.Hour)}
	all := []store.Object{waiting("a", "sales", time.Minute), waiting("b", "sales", 2*time.Minute), waiting("c", "tax", time.Second), holds, waiting("e", "sales", time.Minute)}
	for _, test := range []struct {
		claims []store.Object
		want   []string
	}{
		{all, []string{"waiting, place 2", "waiting, place 1", "waiting, place 1", "sales-1", "waiting, place 3"}},
		{all[4:], []string{"waiting, place 3"}},
	} {
		var got []string
		for _, row := range show.Claims(test.claims, all, true, tokyo()).Rows {
			got = append(got, row[2])
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCalendar(t *testing.T) {
	office := &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{
		TimeZone: "Asia/Tokyo", HolidaySets: []string{"jp"},
		Hours: []*v1.OfficeHours{
			{Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: "13:00", Close: "17:15"}, {Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: "08:30", Close: "12:00"},
			{Days: []v1.Weekday{4}, Open: "17:15", Close: "19:00"},
		},
		Blackouts: []*v1.CalendarDay{{Date: "2026-11-27", Name: "決算"}}, Holidays: []*v1.CalendarDay{{Date: "2026-11-28", Name: "創立記念日"}},
	}}
	branch := &v1.Calendar{Meta: &v1.Meta{Name: "branch"}, Spec: &v1.CalendarSpec{
		TimeZone: "Asia/Tokyo", Parent: "office", Holidays: []*v1.CalendarDay{{Date: "2026-11-30", Name: "moving"}},
		Openings: []*v1.CalendarOpening{
			{Date: "2026-11-28", Open: "09:00", Close: "12:00", Name: "臨時"}, {Date: "2026-11-29", Open: "07:00", Close: "20:00", Name: "選挙"},
		},
	}}
	never := &v1.Calendar{Meta: &v1.Meta{Name: "never"}, Spec: &v1.CalendarSpec{TimeZone: "UTC"}}
	lookup := func(string) (*v1.Calendar, error) { return office, nil }
	var out bytes.Buffer
	for _, c := range []*v1.Calendar{office, branch, never} {
		line, err := calendar.Line(c, lookup)
		if err != nil {
			t.Fatal(err)
		}
		resolved, err := calendar.Resolve(c, lookup)
		if err != nil {
			t.Fatal(err)
		}
		if err := show.Calendar(&out, line, resolved, nil, tokyo()); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n----\n")
	}
	golden(t, "calendars.txt", out.Bytes())
}

// Messages may be empty everywhere: nothing may be assumed to be set.
func TestEmptyObjects(t *testing.T) {
	for _, kind := range store.Kinds() {
		o, err := store.New(kind)
		if err != nil {
			t.Fatal(err)
		}
		table := show.Objects(kind, []store.Object{o}, true, tokyo())
		if len(table.Rows) != 1 || len(table.Rows[0]) != len(table.Header) {
			t.Errorf("%v: %v", kind, table)
		}
	}
	var out bytes.Buffer
	for _, err := range []error{
		show.Desktop(&out, &v1.Desktop{}, nil, tokyo()), show.Pool(&out, &v1.Pool{}, nil, nil, tokyo()),
		show.Host(&out, &v1.Host{}, nil, nil, tokyo()), show.Image(&out, &v1.Image{}, nil, tokyo()),
		show.Rollout(&out, &v1.Rollout{}, nil, nil, tokyo()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"}, {0, "0s"}, {1500 * time.Millisecond, "1.5s"}, {9 * time.Second, "9s"}, {59 * time.Second, "59s"}, {60 * time.Second, "1m"},
		{200 * time.Second, "3m20s"}, {11*time.Minute + 30*time.Second, "11m"}, {time.Hour, "1h"}, {25 * time.Hour, "1d1h"},
		{3*time.Hour + 7*time.Minute, "3h7m"}, {48 * time.Hour, "2d"}, {90 * 24 * time.Hour, "90d"},
	} {
		if got := show.Span(test.d); got != test.want {
			t.Errorf("Span(%v) = %q, want %q", test.d, got, test.want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 9961472: "9.5 MiB", 20 << 30: "20 GiB", 123 << 30: "123 GiB", 1 << 63: "8 EiB"} {
		if got := show.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestWidth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "営業課": 6, "ｱｲｳ": 3, "ＡＢ": 4, "か\u3099": 2, "e\u0301": 1, "🖥": 1, "🏢": 2, "\u200b": 0} {
		if got := show.Width(text); got != want {
			t.Errorf("Width(%q) = %d, want %d", text, got, want)
		}
	}
	if got := show.Clean("a\x1b[31mb\nc\u202ed\xff"); got != "a?[31mb c?d?" {
		t.Errorf("Clean = %q", got)
	}
}
