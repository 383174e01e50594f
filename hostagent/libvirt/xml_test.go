package libvirt

import (
	"encoding/xml"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"

	"daybreak/hostagent"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testConfig() Config {
	return Config{Store: "/var/lib/daybreak-agent/store", AllowEmulation: true}
}

const digest = "7d0c3c27c24bb5c7ea0fe6f6a5a0e2a5be3b1c6b3a8b2f6f4f8f0c9a1b2c3d4e"

func machine() hostagent.Machine {
	return hostagent.Machine{
		Life:   hostagent.Life{Desktop: "office-12", UID: "6f9f3d0c-6a3d-4f0e-9a55-0123456789ab", Generation: 4711},
		VMUUID: "0b6c7d8e-9f00-4a1b-8c2d-3e4f5a6b7c8d", MAC: "52:54:00:12:34:56", Bridge: "zone-office", VCPUs: 2, MemoryMiB: 4096,
		Base:    hostagent.Base{Raw: "/var/lib/daybreak-agent/store/bases/" + digest + ".raw"},
		Overlay: "/var/lib/daybreak-agent/store/overlays/6f9f3d0c-6a3d-4f0e-9a55-0123456789ab.4711.qcow2",
		VNC:     "/run/daybreak-agent/vnc/office-12.sock",
	}
}

func TestDomainXML(t *testing.T) {
	for name, change := range map[string]func(*hostagent.Machine){
		"plain":    func(*hostagent.Machine) {},
		"data":     func(m *hostagent.Machine) { m.Data = "/var/lib/daybreak-agent/store/data/" + m.UID + ".raw" },
		"no-nic":   func(m *hostagent.Machine) { m.Bridge = "" },
		"emulated": func(m *hostagent.Machine) { m.Emulate, m.VCPUs, m.MemoryMiB = true, 1, 128 },
		"build": func(m *hostagent.Machine) {
			m.Life = hostagent.Life{Desktop: "office", UID: m.UID, Generation: 1, Build: true}
			m.Bridge = ""
		},
		"layer": func(m *hostagent.Machine) {
			m.Base.Layer = "/var/lib/daybreak-agent/store/bases/0e1f" + digest[4:] + ".qcow2"
		},
		"appliance": func(m *hostagent.Machine) {
			m.Life = hostagent.Life{Desktop: "micro", UID: m.UID, Generation: 1, Build: true}
			m.Target = "/var/lib/daybreak-agent/store/builds/0b6c7d8e-9f00-4a1b-8c2d-3e4f5a6b7c8d.1.qcow2"
			m.TargetBase, m.Bridge = m.Base, ""
		},
		"japanese": func(m *hostagent.Machine) {
			m.Overlay = `/var/lib/daybreak-agent/store/市役所 & "総務" <課>/o.qcow2`
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine()
			change(&m)
			got, err := testConfig().domainXML(m)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".xml")
			if *update {
				if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), got); diff != "" {
				t.Errorf("XML differs from %s (-update writes it anew):\n%s", golden, diff)
			}
			checkHardened(t, got, m)
		})
	}
}

// checkHardened reads the XML as libvirt does and looks for what must and must not be there.
func checkHardened(t *testing.T, text string, m hostagent.Machine) {
	t.Helper()
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	dev := d.Devices
	if len(dev.RedirDevs)+len(dev.Hostdevs)+len(dev.Filesystems)+len(dev.Smartcards)+len(dev.Shmems)+len(dev.Hubs) != 0 || d.QEMUCommandline != nil {
		t.Error("a device or an argument that no desktop has")
	}
	if len(dev.Controllers) != 1 || dev.Controllers[0].Model != "none" {
		t.Error("USB is not turned off")
	}
	for i, want := range []string{m.Overlay, m.Data} {
		if want == "" {
			continue
		}
		disk := dev.Disks[i]
		if disk.Source.File.File != want || disk.Driver.Type == "" || disk.BackingStore == nil || disk.Driver.ErrorPolicy != "stop" {
			t.Errorf("disk %d is not %s with its format, chain and error policy", i, want)
		}
	}
	base := dev.Disks[0].BackingStore
	if m.Base.Layer != "" {
		if base.Source.File.File != m.Base.Layer || base.Format.Type != "qcow2" {
			t.Error("the overlay does not stand on the layer")
		}
		base = base.BackingStore
	}
	if base.Source.File.File != m.Base.Raw || base.Format.Type != "raw" {
		t.Error("the overlay's base is not the raw one")
	}
	// libvirtxml does not tell an end from nothing.
	if ends := strings.Count(text, "<backingStore></backingStore>"); ends != len(dev.Disks) {
		t.Errorf("%d of %d chains have an end", ends, len(dev.Disks))
	}
	life, err := parseLife(d.Metadata.XML, m.Build)
	if err != nil || life != m.Life {
		t.Errorf("metadata read back: %+v, %v", life, err)
	}
}

// What people and peers can make of names: none of it gets into XML.
func hostileTexts() []string {
	return []string{
		"", " ", ".", "..", "../../etc/passwd", "/", "//", "/etc/../etc", "%2e%2e", "a\x00b", "a\nb", "a\rb", "a\x1b[31mb", "a\x7fb", "]]>", "<!ENTITY x 'y'>", "&#0;", "&amp;",
		`"/><disk type='file'/>`, "'", "x,file=/etc/shadow", "{\"driver\":\"nbd\"}", "json:{}", "-x", "\u202egnp.exe", "\ufeffa", "a\ufffdb", "\xff\xfe",
		"аdmin", "全角", "ｶﾅ", "𠮷", "①", "con", strings.Repeat("a", 2000), "A" + strings.Repeat("é", 600),
	}
}

func TestHostileFields(t *testing.T) {
	cfg := testConfig()
	fields := map[string]func(*hostagent.Machine) *string{
		"desktop": func(m *hostagent.Machine) *string { return &m.Desktop },
		"uid":     func(m *hostagent.Machine) *string { return &m.UID },
		"vm uuid": func(m *hostagent.Machine) *string { return &m.VMUUID },
		"mac":     func(m *hostagent.Machine) *string { return &m.MAC },
		"bridge":  func(m *hostagent.Machine) *string { return &m.Bridge },
		"base":    func(m *hostagent.Machine) *string { return &m.Base.Raw },
		"layer":   func(m *hostagent.Machine) *string { return &m.Base.Layer },
		"overlay": func(m *hostagent.Machine) *string { return &m.Overlay },
		"data":    func(m *hostagent.Machine) *string { return &m.Data },
		"vnc":     func(m *hostagent.Machine) *string { return &m.VNC },
	}
	for name, field := range fields {
		for _, bad := range hostileTexts() {
			m := machine()
			*field(&m) = bad
			text, err := cfg.domainXML(m)
			switch {
			case bad == "" && (name == "bridge" || name == "data" || name == "layer"), name == "desktop" && bad == "con", name == "bridge" && bad == "con":
				// A good value.
			case err == nil:
				t.Errorf("%s %.40q was taken:\n%s", name, bad, text)
			case !errors.Is(err, hostagent.ErrPermanent):
				t.Errorf("%s %.40q: %v is not permanent", name, bad, err)
			case strings.ContainsAny(err.Error(), "\x00\x1b\x7f\u202e"):
				t.Errorf("%s %.40q: the error carries it raw: %q", name, bad, err)
			}
		}
	}
	for name, change := range map[string]func(*hostagent.Machine){
		"no vcpu":            func(m *hostagent.Machine) { m.VCPUs = 0 },
		"too many vcpus":     func(m *hostagent.Machine) { m.VCPUs = 513 },
		"no memory":          func(m *hostagent.Machine) { m.MemoryMiB = 0 },
		"too much memory":    func(m *hostagent.Machine) { m.MemoryMiB = 1 << 31 },
		"generation 0":       func(m *hostagent.Machine) { m.Generation = 0 },
		"group address":      func(m *hostagent.Machine) { m.MAC = "53:54:00:12:34:56" },
		"outside the store":  func(m *hostagent.Machine) { m.Overlay = "/var/lib/daybreak-agent/store2/o.qcow2" },
		"base is overlay":    func(m *hostagent.Machine) { m.Overlay = m.Base.Raw },
		"layer is base":      func(m *hostagent.Machine) { m.Base.Layer = m.Base.Raw },
		"layer is overlay":   func(m *hostagent.Machine) { m.Base.Layer = m.Overlay },
		"data is overlay":    func(m *hostagent.Machine) { m.Data = m.Overlay },
		"vnc path too long":  func(m *hostagent.Machine) { m.VNC = "/" + strings.Repeat("v", 107) },
		"bridge of 16 bytes": func(m *hostagent.Machine) { m.Bridge = "sixteen-bytes-xx" },
	} {
		m := machine()
		change(&m)
		if _, err := cfg.domainXML(m); !errors.Is(err, hostagent.ErrPermanent) {
			t.Errorf("%s: %v, want ErrPermanent", name, err)
		}
	}
	cfg.AllowEmulation = false
	m := machine()
	m.Emulate = true
	if _, err := cfg.domainXML(m); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("emulation where it is not allowed: %v, want ErrPermanent", err)
	}
}

// Whatever is taken means in XML what it meant in the machine.
func FuzzDomainXML(f *testing.F) {
	for _, bad := range hostileTexts() {
		f.Add(bad, "/var/lib/daybreak-agent/store/"+bad)
	}
	f.Fuzz(func(t *testing.T, name, path string) {
		m := machine()
		m.Desktop, m.Overlay = name, path
		text, err := testConfig().domainXML(m)
		if err != nil {
			return
		}
		var d libvirtxml.Domain
		if err := d.Unmarshal(text); err != nil {
			t.Fatalf("not XML: %v\n%s", err, text)
		}
		if len(d.Devices.Disks) != 1 || d.Devices.Disks[0].Source.File.File != path || d.Name != domainName(m.Life) {
			t.Errorf("%q became another machine:\n%s", path, text)
		}
	})
}

func TestMetadata(t *testing.T) {
	life := machine().Life
	text, err := encodeLife(life)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		text,
		`<life xmlns="urn:daybreak:domain:1" desktop="office-12" uid="6f9f3d0c-6a3d-4f0e-9a55-0123456789ab" generation="4711"/>`,
		// How libvirt answers when asked for the element.
		`<life desktop="office-12" uid="6f9f3d0c-6a3d-4f0e-9a55-0123456789ab" generation="4711"/>`,
		"\n  " + strings.NewReplacer("daybreak:life", "d:life", "xmlns:daybreak", "xmlns:d").Replace(text) + "\n",
	} {
		got, err := parseLife(form, false)
		if err != nil || !reflect.DeepEqual(got, life) {
			t.Errorf("%s was read as %+v, %v", form, got, err)
		}
	}
	for _, foreign := range []string{
		"", "<", "<life/>", `<life xmlns="urn:other" desktop="a" uid="6f9f3d0c-6a3d-4f0e-9a55-0123456789ab" generation="1"/>`,
		strings.Replace(text, "4711", "0", 1), strings.Replace(text, "4711", "-1", 1), strings.Replace(text, "4711", "9223372036854775808", 1),
		strings.Replace(text, "daybreak:life", "daybreak:build", 1), strings.Replace(text, "domain:1", "build:1", 1),
		strings.Replace(text, "office-12", "../etc", 1), strings.Replace(text, "6f9f", "6F9F", 1), text + strings.Repeat(" ", maxMetadata),
	} {
		if got, err := parseLife(foreign, false); !errors.Is(err, errNotOurs) {
			t.Errorf("%.80q was read as %+v, %v", foreign, got, err)
		}
	}
}

func FuzzParseLife(f *testing.F) {
	text, err := encodeLife(machine().Life)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(`<!DOCTYPE a [<!ENTITY b "c">]><life xmlns="urn:daybreak:domain:1" desktop="&b;"/>`)
	f.Fuzz(func(t *testing.T, text string) {
		life, err := parseLife(text, false)
		if err != nil {
			return
		}
		again, err := encodeLife(life)
		if err != nil {
			t.Fatalf("%q was read as %+v, which cannot be written: %v", text, life, err)
		}
		if xml.Unmarshal([]byte(again), new(lifeElement)) != nil {
			t.Errorf("%q became %q", text, again)
		}
	})
}
