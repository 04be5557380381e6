// How the page looks on screens, light and dark, wide and narrow, and on paper.
import { THEME_CSS } from "./palette.js";

export const PAGE_CSS = `${THEME_CSS}
*{box-sizing:border-box}
html{background:var(--page);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",sans-serif;color-scheme:light dark;
-webkit-text-size-adjust:100%}
body{max-width:71rem;margin:0 auto;padding:3rem 1.25rem 5rem}
h1{font-size:2.4rem;line-height:1.15;letter-spacing:-.02em;margin:0 0 .5rem;font-weight:700}
h2{font-size:1.45rem;line-height:1.25;letter-spacing:-.01em;margin:4rem 0 .75rem;padding-top:1.25rem;border-top:1px solid var(--grid)}
h3{font-size:1.05rem;margin:2rem 0 .25rem}
p,ul{max-width:44rem;margin:.75rem 0}li{margin:.3rem 0}
a{color:var(--runtime);text-decoration-thickness:1px;text-underline-offset:2px}
code{font-size:.88em}
.lead{font-size:1.15rem;color:var(--muted);margin:0 0 1.5rem}
.host{color:var(--muted);font-size:.85rem;margin:1.5rem 0}.host p{margin:0;max-width:none}
.note{color:var(--muted);font-size:.88rem}
.warning{border-left:3px solid var(--vm);background:var(--shade);padding:.75rem 1rem;border-radius:0 6px 6px 0;font-size:.92rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11.5rem,1fr));gap:1rem;margin:2rem 0 1rem;padding:0;max-width:none;list-style:none}
.cards li{background:var(--shade);border-top:3px solid var(--family);border-radius:3px;padding:.8rem 1rem .9rem;margin:0}
.cards b{display:block;font-size:.95rem}
.cards strong{display:block;font-size:1.75rem;line-height:1.25;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.cards span{display:block;color:var(--muted);font-size:.8rem;line-height:1.45}
figure{margin:1.5rem 0}figure svg{width:100%;height:auto;display:block}
figcaption{color:var(--muted);font-size:.85rem;max-width:44rem;margin-top:.5rem}
.scroll{overflow-x:auto;margin:1.5rem 0}
table{border-collapse:collapse;font-size:.8rem;line-height:1.4;font-variant-numeric:tabular-nums;min-width:min(100%,34rem)}
caption{text-align:left;color:var(--muted);padding:0 0 .5rem;font-size:.85rem}
th,td{padding:.35rem .55rem;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap;vertical-align:top}
thead th{font-weight:600;color:var(--muted);vertical-align:bottom;white-space:normal;min-width:4.5rem;border-bottom-color:var(--muted)}
tbody tr:hover{background:var(--shade)}
th.w,td.w{text-align:left}
tbody th{font-weight:600;text-align:left;position:sticky;left:0;background:var(--page)}
tbody tr:hover th{background:var(--shade)}
.history table{min-width:0;margin:1.5rem 0}.history th,.history td{text-align:left;white-space:normal;color:inherit}
td.words{white-space:normal;min-width:11rem}
td.own{color:var(--namespaces);font-weight:600}td.shared{color:var(--muted)}
.dot{display:inline-block;width:.55em;height:.55em;border-radius:50%;margin-right:.55em;background:var(--family)}
@media (max-width:40rem){body{padding-top:1.5rem}h1{font-size:1.9rem}h2{margin-top:3rem}figure svg{min-width:44rem}figure .chart{overflow-x:auto}}
@media print{@page{size:A4;margin:14mm}html{font-size:10pt}body{max-width:none;padding:0}
h2{margin-top:1.6rem;break-after:avoid}h3{break-after:avoid}p,li,ul,figcaption{orphans:3;widows:3;max-width:none}
figure,.cards li,tr,.warning{break-inside:avoid}.scroll{overflow:visible;margin:1rem 0}thead{display:table-header-group}
table{font-size:6.6pt;min-width:0}.scroll{break-inside:avoid}th,td{padding:.14rem .28rem}thead th{min-width:0}td.words{min-width:0}
tbody th{position:static}a{color:inherit;text-decoration:none}.cards{gap:.6rem;grid-template-columns:repeat(5,1fr)}.cards strong{font-size:1.3rem}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}`;
