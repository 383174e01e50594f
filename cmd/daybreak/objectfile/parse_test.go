package objectfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/cmd/daybreak/objectfile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func wantObjects(t *testing.T, text string, want ...store.Object) {
	t.Helper()
	documents, err := objectfile.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Errorf("%v\nof:\n%s", err, text)
		return
	}
	var got []store.Object
	for _, d := range documents {
		got = append(got, d.Object)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	pool := &v1.Pool{
		Meta: &v1.Meta{Name: "sales", Labels: map[string]string{"floor": "3", "section": "営業"}},
		Spec: &v1.PoolSpec{
			Image: "debian", Zone: "internet", Desktops: 6, Shape: &v1.Shape{MemoryMib: 512},
			Readiness: &v1.Readiness{Probe: []string{"test", "-e", "/run/ready"}, Deadline: durationpb.New(5 * time.Minute)},
		},
	}
	wantObjects(t, `kind: pool
meta:
  name: sales
  labels: {floor: "3", section: 営業}
spec:
  image: debian
  zone: internet
  desktops: 6
  shape: {memory_mib: 512}
  readiness:
    probe: [test, -e, /run/ready]
    deadline: 5m
`, pool)
	wantObjects(t, "\ufeffkind: Pool\r\nmeta: {name: sales, labels: {floor: '3', section: 営業}}\r\nspec: {image: debian, zone: internet, desktops: 6, shape: {memoryMib: 512}, readiness: {probe: [test, -e, /run/ready], deadline: 300s}}\r\nstatus:\r\n", pool)
	wantObjects(t, "{\n\t\"kind\": \"zone\",\n\t\"meta\": {\"name\": \"internet\", \"revision\": \"12\"},\n\t\"spec\": {\"displayName\": \"インターネット\"}\n}\n",
		&v1.Zone{Meta: &v1.Meta{Name: "internet", Revision: 12}, Spec: &v1.ZoneSpec{DisplayName: "インターネット"}})
	wantObjects(t, "# nothing\n---\n---\nkind: zone\nmeta: {name: a}\n---\nkind: host\nmeta: {name: b}\nspec: {unschedulable: true, cpu_overcommit: 2.5, reserved_memory_mib: 4096}\n---\n",
		&v1.Zone{Meta: &v1.Meta{Name: "a"}},
		&v1.Host{Meta: &v1.Meta{Name: "b"}, Spec: &v1.HostSpec{Unschedulable: true, CpuOvercommit: 2.5, ReservedMemoryMib: 4096}})
	wantObjects(t, "kind: calendar\nmeta: {name: c}\nspec:\n  time_zone: Asia/Tokyo\n  hours:\n  - {days: [monday, WEEKDAY_FRIDAY], open: 08:30, close: 17:15}\n  holidays: [{date: 2026-11-23, name: 勤労感謝の日}]\n",
		&v1.Calendar{Meta: &v1.Meta{Name: "c"}, Spec: &v1.CalendarSpec{
			TimeZone: "Asia/Tokyo",
			Hours:    []*v1.OfficeHours{{Days: []v1.Weekday{v1.Weekday_WEEKDAY_MONDAY, v1.Weekday_WEEKDAY_FRIDAY}, Open: "08:30", Close: "17:15"}},
			Holidays: []*v1.CalendarDay{{Date: "2026-11-23", Name: "勤労感謝の日"}},
		}})
}

func TestDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "0d5m": 5 * time.Minute} {
		wantObjects(t, "kind: pool\nmeta: {name: a}\nspec: {image: b, zone: c, idle: {open: {after: "+text+", action: suspend}}}\n",
			&v1.Pool{Meta: &v1.Meta{Name: "a"}, Spec: &v1.PoolSpec{Image: "b", Zone: "c", Idle: &v1.IdlePolicy{
				Open: &v1.IdleRule{After: durationpb.New(want), Action: v1.IdleAction_IDLE_ACTION_SUSPEND},
			}}})
	}
}

func TestMistakes(t *testing.T) {
	const head = "kind: pool\nmeta: {name: sales}\nspec:\n  image: debian\n  zone: internet\n"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "x.yaml: the file holds no object"},
		{"only comments", "# kind: pool\n---\n", "x.yaml: the file holds no object"},
		{"a list", "- kind: pool\n", "x.yaml:1:1: want an object, found a list"},
		{"no kind", "meta: {name: a}\n", "x.yaml:1:1: kind: is missing: say what it is, one of zone, calendar, image, host, pool"},
		{"a wrong kind", "kind: pod\nmeta: {name: a}\n", `x.yaml:1:7: kind: "pod" is no kind of object`},
		{"kind twice", "kind: zone\nkind: host\nmeta: {name: a}\n", "x.yaml:2:1: kind: stands twice"},
		{"unknown field", head + "  desktop: 6\n", "x.yaml:6:3: spec.desktop: there is no such field; there are image, version, zone, desktops,"},
		{"unknown field in the shape", head + "  shape:\n    ram: 5\n", "x.yaml:7:5: spec.shape.ram: there is no such field; there are vcpus, memoryMib,"},
		{"a key twice", head + "  image: windows\n", "x.yaml:6:3: spec.image: stands twice"},
		{"a key in both spellings", head + "  shape: {memory_mib: 1, memoryMib: 1}\n", "x.yaml:6:26: spec.shape.memoryMib: stands twice, as memory_mib and memoryMib"},
		{"text for a number", head + "  desktops: six\n", `x.yaml:6:13: spec.desktops: want a whole number, in plain decimal digits, found "six"`},
		{"a number in quotes", head + "  desktops: '6'\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"octal", head + "  desktops: 0755\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"exponent", head + "  desktops: 1e3\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"hexadecimal", head + "  desktops: 0x10\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"underscores", head + "  desktops: 1_000\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"negative", head + "  desktops: -1\n", "x.yaml:6:13: spec.desktops: want a whole number, 0 or more, found -1"},
		{"too large for its type", head + "  desktops: 4294967296\n", "x.yaml:6:13: spec.desktops: want a smaller number, found 4294967296"},
		{"too large", head + "  desktops: 5001\n", "x.yaml:6:13: spec.desktops: must be at most 5000"},
		{"a fraction", head + "  desktops: 1.5\n", "x.yaml:6:13: spec.desktops: want a whole number"},
		{"a list for a number", head + "  desktops: [6]\n", "x.yaml:6:13: spec.desktops: want a number, found a list"},
		{"a number for text", "kind: zone\nmeta: {name: 5}\n", `x.yaml:2:14: meta.name: want a text: put it in quotes, found 5`},
		{"yes for a bool", "kind: host\nmeta: {name: a}\nspec: {unschedulable: yes}\n", "x.yaml:3:23: spec.unschedulable: want true or false"},
		{"not a number", "kind: host\nmeta: {name: a}\nspec: {cpu_overcommit: .nan}\n", "x.yaml:3:24: spec.cpuOvercommit: want a number"},
		{"a bad name", "kind: zone\nmeta: {name: Internet Zone}\n", `x.yaml:2:14: meta.name: must be a name of lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends, found "Internet Zone"`},
		{"a path for a name", "kind: zone\nmeta: {name: ../../etc}\n", "x.yaml:2:14: meta.name: must be a name"},
		{"no name", "kind: zone\nmeta: {}\n", "x.yaml:2:7: meta.name: must be a name"},
		{"no meta", "kind: zone\nspec: {}\n", "x.yaml:1:1: meta: "},
		{"a pool's long name", "kind: pool\nmeta: {name: " + strings.Repeat("a", 41) + "}\nspec: {image: a, zone: b}\n", "x.yaml:2:14: meta.name: at most 40 characters"},
		{"a control character", "kind: zone\nmeta: {name: a}\nspec: {display_name: \"a\\x1b[31m\"}\n", `x.yaml:3:22: spec.displayName: must not hold control characters or line breaks, found "a\x1b[31m"`},
		{"a duration without unit", head + "  readiness: {deadline: 300}\n", `x.yaml:6:25: spec.readiness.deadline: want a time with its unit, like 300s, 5m, 1h30m or 7d, found 300`},
		{"too many days", head + "  readiness: {deadline: 9999999999d}\n", "want a time with its unit"},
		{"days backwards", head + "  readiness: {deadline: 1d-5s}\n", "want a time with its unit"},
		{"too long", head + "  idle: {open: {after: 31d, action: suspend}}\n", "x.yaml:6:24: spec.idle.open.after: must be at least 1m and at most 30d"},
		{"a negative duration", head + "  readiness: {deadline: -5s}\n", "x.yaml:6:25: spec.readiness.deadline: must be more than 0s and at most 2h"},
		{"a wave", head + "  rollout: {waves: [\"1\", half]}\n", `x.yaml:6:26: spec.rollout.waves[1]: must be a number of desktops like 10, or a share of the pool like 25%`},
		{"a target", head + "  schedule: {open: 150%}\n", `x.yaml:6:20: spec.schedule.open: must be a number of desktops like 10, a share of the seats like 50%, or learned, found "150%"`},
		{"a span without target", head + "  schedule: {spans: [{from: 08:00, to: 09:00}]}\n", "spec.schedule.spans[0].target: must be a number of desktops like 10"},
		{"idle without action", head + "  idle: {open: {after: 2h}}\n", "spec.idle.open.action: must be set: one of suspend, shut_down, release"},
		{"a weekday", "kind: calendar\nmeta: {name: a}\nspec:\n  time_zone: Asia/Tokyo\n  hours: [{days: [mon], open: 8:30, close: 25:00}]\n", `x.yaml:5:19: spec.hours[0].days[0]: want one of monday, tuesday,`},
		{"a time of day", "kind: calendar\nmeta: {name: a}\nspec:\n  time_zone: Asia/Tokyo\n  hours: [{days: [monday], open: 8:30, close: 25:00}]\n", `x.yaml:5:34: spec.hours[0].open: must be a time of day like 08:30, found "8:30"`},
		{"an anchor", "kind: zone\nmeta: &m {name: a}\n", "x.yaml:2:7: anchors"},
		{"an alias", "kind: zone\nmeta: *m\n", "unknown anchor 'm' referenced"},
		{"a date for a holiday", "kind: calendar\nmeta: {name: a}\nspec: {holidays: [2026-02-03]}\n", "x.yaml:3:19: spec.holidays[0]: want an object, {field: value, …}, with the fields date, name; found 2026-02-03"},
		{"one day for a list", "kind: calendar\nmeta: {name: a}\nspec: {hours: [{days: monday}]}\n", "x.yaml:3:23: spec.hours[0].days: want a list, like [a, b]; found \"monday\""},
		{"full-width digits", head + "  desktops: ６\n", `x.yaml:6:13: spec.desktops: want a whole number, in plain decimal digits, found "６" (in full-width characters`},
		{"pasted quotation marks", head + "  schedule: {open: “50%”}\n", `learned, found "“50%”" (with quotation marks that YAML does not know as such`},
		{"a field in another spelling", head + "  Min-Ready: 1\n", "x.yaml:6:3: spec.Min-Ready: there is no such field; it is written minReady"},
		{"a full-width colon", head + "  minReady： 1\n", "could not find expected ':' (after a field's name stand a half-width colon and a space)"},
		{"indented too deep", head + "    minReady: 1\n", "(is it indented as the lines around it are?)"},
		{"Shift_JIS", "kind: zone\nmeta: {name: a}\nspec: {displayName: \x92\xa1}\n", "(the file must be in UTF-8: save it as such)"},
		{"a tag", "kind: zone\nmeta: {name: !!binary YQ==}\n", "x.yaml:2:14: meta: tags (!!binary) are not taken"},
		{"a merge key", "kind: zone\n<<: {name: a}\nmeta: {name: a}\n", "x.yaml:2:1: a name is wanted here"},
		{"a tab", "kind: zone\nmeta:\n\tname: a\n", "indented by spaces, not by tabs"},
		{"no YAML", "kind: zone\nmeta: {name: a\n", "this is not YAML"},
		{"binary", "\x00\x01\x02\xff", "this is not YAML"},
		{"a label with a number", "kind: zone\nmeta: {name: a, labels: {release: 1.10}}\n", `x.yaml:2:35: meta.labels["release"]: want a text: put it in quotes, found 1.10`},
		{"a bad label", "kind: zone\nmeta: {name: a, labels: {'a b': x}}\n", `x.yaml:2:33: meta.labels["a b"]: must be of letters, digits, dots`},
		{"labels as a list", "kind: zone\nmeta: {name: a, labels: [x]}\n", "x.yaml:2:25: meta.labels: want names with values"},
		{"a field with a line break", "kind: zone\n\"a\\nb\": 1\nmeta: {name: a}\n", `x.yaml:2:1: "a\nb": there is no such field`},
		{"too large a file", "# " + strings.Repeat("x", objectfile.MaxBytes), "x.yaml: the file is larger than 1048576 bytes"},
		{"too many objects", strings.Repeat("---\nkind: zone\n", 1001), "x.yaml: the file holds more than 1000 objects"},
		{"second document", "kind: zone\nmeta: {name: a}\n---\nkind: zone\nmeta: {nam: b}\n", "x.yaml:5:8: meta.nam: there is no such field"},
	} {
		_, err := objectfile.Parse("x.yaml", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got\n%v\nwant\n%s", test.name, err, test.want)
		}
		if mistakes := (objectfile.Mistakes)(nil); err != nil && !errors.As(err, &mistakes) {
			t.Errorf("%s: an error of another type: %T", test.name, err)
		}
	}
}

func TestManyMistakesAreToldAtOnce(t *testing.T) {
	text := "kind: pool\nmeta: {name: A}\nspec: {image: B, zone: c, desktops: 9999}\n"
	_, err := objectfile.Parse("x.yaml", []byte(text))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three lines, got:\n%v", err)
	}
	_, err = objectfile.Parse("x.yaml", []byte("kind: zone\nmeta: {name: a, labels: {"+strings.Repeat("? 1 : x, ", 300)+"}}"))
	if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.HasSuffix(err.Error(), "and 280 more") {
		t.Errorf("want twenty lines and a count, got:\n%v", err)
	}
}

func TestAt(t *testing.T) {
	documents, err := objectfile.Parse("x.yaml", []byte("kind: pool\nmeta: {name: a}\nspec:\n  image: b\n  zone: c\n  shape:\n    vcpus: 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"spec.zone": "x.yaml:5:9", "spec.shape.vcpus": "x.yaml:7:12", "spec.shape.memoryMib": "x.yaml:7:5",
		"spec.calendar": "x.yaml:4:3", "": "x.yaml:1:1", "nowhere[3].x": "x.yaml:1:1",
	} {
		if got := documents[0].At(path).String(); got != want {
			t.Errorf("At(%q) = %s, want %s", path, got, want)
		}
	}
}

// What "get -o yaml" prints can be applied: protojson's spelling of every kind of value is read.
func TestReadsWhatProtojsonWrites(t *testing.T) {
	for _, object := range []store.Object{
		&v1.Host{Meta: &v1.Meta{Name: "a", Revision: 7, Uid: "x"}, Spec: &v1.HostSpec{ReservedMemoryMib: 1 << 20, CpuOvercommit: 1.5}},
		&v1.Calendar{Meta: &v1.Meta{Name: "a"}, Spec: &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Days: []v1.Weekday{3}, Open: "08:30", Close: "24:00"}}}},
		&v1.Pool{Meta: &v1.Meta{Name: "a", Labels: map[string]string{"a": "b"}}, Spec: &v1.PoolSpec{Image: "a", Zone: "b", Readiness: &v1.Readiness{Deadline: durationpb.New(1500 * time.Millisecond)}}},
	} {
		text, err := protojson.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		wantObjects(t, fmt.Sprintf(`{"kind": %q, %s`, store.KindName(store.KindOf(object)), text[1:]), object)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("kind: pool\nmeta: {name: a}\nspec: {image: a, zone: b, desktops: 3}\n---\nkind: zone\nmeta: {name: b}\n"))
	f.Add([]byte("{\"kind\": \"calendar\",\n\t\"meta\": {\"name\": \"a\"}, \"spec\": {\"hours\": [{\"days\": [\"monday\"]}]}}"))
	f.Add([]byte("a: &a [x]\nb: *a\n"))
	f.Add([]byte("kind: host\n? [a]\n: {b: !!int 3}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		documents, err := objectfile.Parse("x", text)
		if mistakes := (objectfile.Mistakes)(nil); err != nil && (!errors.As(err, &mistakes) || len(mistakes) == 0 || documents != nil) {
			t.Fatalf("error %T with %d documents", err, len(documents))
		}
		for _, d := range documents {
			if d.Object == nil || d.Object.GetMeta().GetName() == "" {
				t.Fatalf("an object without name: %v", d.Object)
			}
		}
	})
}

func TestTheTreesOwnExamples(t *testing.T) {
	files, err := filepath.Glob("../../../deploy/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nkind: ") || strings.HasPrefix(string(text), "kind: ") {
			if _, err := objectfile.Parse(file, text); err != nil {
				t.Error(err)
			}
		}
	}
}
