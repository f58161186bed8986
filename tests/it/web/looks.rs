//! How the pages look: to everybody, in dark and light, on a phone, by keyboard, and to a screen reader.

use super::*;

/// Every kind of page, with something that it shows.
const PAGES: [(&str, &str); 9] = [
    ("/", "performance-lab"),
    ("/pools/staging", "main/shop/deploy #12"),
    ("/pools/performance-lab", "new disks"),
    ("/pools/%3Cimg%20src=x%20onerror=document.title='owned'%3E", HOSTILE),
    ("/claims/waits-1", "Place 1"),
    ("/claims/held-1", "holds its locks"),
    ("/history", HOSTILE),
    ("/figures", "Holds by team"),
    ("/pools/none", "There is no pool called"),
];

#[test]
fn every_page_is_whole_at_every_size() {
    let (server, browser) = (busy(), Browser::start());
    past::some_history(&server);
    for (path, expected) in PAGES {
        for (width, height) in [(1200, 900), (360, 800)] {
            browser.resize(width, height);
            browser.open(&page(&server, path));
            browser.sees(expected);
            let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.run(wide, &[]), json!(0), "{path} scrolls sideways at {width}");
        }
        let title = browser.run("return document.title", &[]);
        assert!(title.as_str().unwrap().ends_with("· Locker"), "{title}");
        let complaints = browser.complaints();
        // That there is no such page is no fault of the page.
        assert!(complaints.is_empty() || path == "/pools/none", "{path}: {complaints:?}");
    }
}

/// For each element with text of its own: its contrast with what is behind it, if that is too low (WCAG 2, AA).
const LOW_CONTRAST: &str = r"
    const light = (value) => { const v = value / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
    const behind = (one) => {
      for (; one; one = one.parentElement) {
        const colour = parts(getComputedStyle(one).backgroundColor);
        if (colour.length === 3 || colour[3] === 1) return colour;
      }
      return parts(getComputedStyle(document.documentElement).colorScheme.startsWith('dark') ? 'rgb(0,0,0)' : 'rgb(255,255,255)');
    };
    const low = [];
    for (const one of document.querySelectorAll('body *')) {
      const style = getComputedStyle(one);
      const texts = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!(texts || one.value || one.placeholder) || !one.getClientRects().length) continue;
      const pairs = [[one.namespaceURI.endsWith('svg') ? style.fill : style.color, style]];
      if (one.placeholder) pairs.push([getComputedStyle(one, '::placeholder').color, style]);
      for (const [colour] of pairs) {
        const [a, b] = [luminance(parts(colour)), luminance(behind(one))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        const size = parseFloat(style.fontSize);
        const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        if (ratio < enough) low.push(`${one.tagName}.${one.className} ${colour}: ${ratio.toFixed(2)}: ${one.textContent.slice(0, 40)}`);
      }
    }
    return low;";

/// Controls without a name, pictures without words, and tables without headings.
const NAMELESS: &str = r"
    const wrong = [];
    for (const one of document.querySelectorAll('button, a, input:not([type=hidden]), select, textarea')) {
      const name = one.innerText?.trim() || one.labels?.[0]?.innerText.trim() || one.getAttribute('aria-label');
      if (!name && one.getClientRects().length) wrong.push(one.outerHTML);
      if (one.tabIndex < 0) wrong.push(`not by keyboard: ${one.outerHTML}`);
    }
    for (const svg of document.querySelectorAll('svg')) if (!svg.closest('[aria-hidden=true]')) wrong.push(svg.outerHTML);
    for (const table of document.querySelectorAll('table')) {
      if (!table.querySelector('thead th[scope=col]') || !table.querySelector('tbody th[scope=row]')) wrong.push('a table without headings');
    }
    if (document.querySelectorAll('h1').length !== 1 || document.documentElement.lang !== 'en') wrong.push('no heading');
    return wrong;";

#[test]
fn every_text_can_be_read_and_every_control_has_a_name() {
    let (server, browser) = (busy(), Browser::start());
    past::some_history(&server);
    for scheme in ["light", "dark"] {
        browser.colours(scheme);
        for (path, expected) in PAGES {
            browser.open(&page(&server, path));
            browser.sees(expected);
            // With everything open.
            browser.run("document.querySelectorAll('summary').forEach((one) => one.click())", &[]);
            if path == "/pools/staging" {
                browser.sees("hidden: show");
                browser.run("document.querySelector('.row [data-action]').click()", &[]);
            }
            assert_eq!(browser.run(LOW_CONTRAST, &[]), json!([]), "{path} in {scheme}");
            assert_eq!(browser.run(NAMELESS, &[]), json!([]), "{path}");
        }
    }
    let back = browser.run("return getComputedStyle(document.body).backgroundColor", &[]);
    assert_eq!(back, json!("rgb(13, 17, 23)"), "the last ones were dark");
}

/// 100 pools with 50 locks each, and 1,000 waiters in one of them. How long a browser takes until a reader can use the
/// page is printed, not asserted: `docs/proofs.md`.
#[test]
fn a_large_server_is_shown_whole() {
    let (server, browser) = (Server::start(), Browser::start());
    let mut connection = server.connect();
    let mut put = |path: &str, body: &Value| connection.call(&format!("PUT /api/v1{path}"), &body.to_string()).status;
    for n in 0..100 {
        assert_eq!(put(&format!("/pools/pool-{n:02}"), &json!({ "capacity": 50 })), 200);
    }
    for n in 0..50 {
        assert_eq!(put(&format!("/claims/h{n}"), &json!({ "pool": "pool-00", "owner": owner("7") })), 200);
    }
    for n in 0..1_000 {
        assert_eq!(put(&format!("/claims/w{n}"), &json!({ "pool": "pool-00", "owner": owner("8") })), 423);
    }
    for (path, rows, count) in [("/", "tbody tr", 100), ("/pools/pool-00", ".queue > li", 1_000)] {
        browser.open(&page(&server, path));
        browser.sees("live");
        let shown = browser.run("return document.querySelectorAll(arguments[0]).length", &[rows]);
        assert_eq!(shown, json!(count), "{path}");
        let script = "const at = performance.getEntriesByType('navigation')[0]; \
                      return `${Math.round(at.responseEnd)} ms until it is loaded, ${Math.round(at.domInteractive)} ms until \
                      it is interactive, ${Math.round(at.loadEventEnd)} ms in all`";
        println!("{path}: {}", browser.run(script, &[]));
    }
    assert_eq!(browser.complaints(), [""; 0]);
}
