// device names the browser and the system of a User-Agent. Order matters: Edge says Chrome too, and Chrome says Safari.
const browsers = [
  ["Edge", /\bEdgA?\/(\d+)/],
  ["Opera", /\bOPR\/(\d+)/],
  ["Samsung Internet", /\bSamsungBrowser\/(\d+)/],
  ["Firefox", /\b(?:Firefox|FxiOS)\/(\d+)/],
  ["Chrome", /\b(?:HeadlessChrome|Chrome|CriOS)\/(\d+)/],
  ["Safari", /\bVersion\/(\d+).* Safari\//],
];
const systems = [
  ["iPhone", /\biPhone\b/],
  ["iPad", /\biPad\b/],
  ["Android", /\bAndroid\b/],
  ["Windows", /\bWindows\b/],
  ["ChromeOS", /\bCrOS\b/],
  ["macOS", /\bMacintosh\b/],
  ["Linux", /\bLinux\b/],
];

export function device(userAgent = "") {
  const [browser, found] = browsers.map(([name, pattern]) => [name, pattern.exec(userAgent)]).find(([, match]) => match) ?? [];
  const [system] = systems.find(([, pattern]) => pattern.test(userAgent)) ?? [];
  return {
    browser: browser ? `${browser} ${found[1]}` : "Unknown browser",
    system: system ?? "unknown system",
    handheld: ["iPhone", "iPad", "Android"].includes(system),
  };
}
