package libvirt

import "testing"

func TestSandboxed(t *testing.T) {
	for argv, want := range map[string]bool{
		"": false, "-sandbox": false, "qemu -m 64 -name sandbox=on": false, "qemu -sandbox off -m 64": false, "qemu -sandbox onto": false,
		"LC_ALL=C qemu -m 64 -sandbox on,obsolete=deny,spawn=deny -msg timestamp=on": true, "qemu \\\n-sandbox on \\\n-m 64": true,
	} {
		if got := sandboxed(argv); got != want {
			t.Errorf("sandboxed(%q) = %v", argv, got)
		}
	}
}
