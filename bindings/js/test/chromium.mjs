// Chromium, for pages.
import { chromium } from "playwright-core";

/** Opens a page in Chromium, and gives what the probe finds there once it finds something, and the browser's major version. */
export async function inChromium(url, probe = () => globalThis.result, timeoutMs = 1_200_000) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  try {
    const page = await browser.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    await page.goto(url, { timeout: timeoutMs });
    try {
      const result = await (await page.waitForFunction(probe, undefined, { timeout: timeoutMs })).jsonValue();
      return { result, version: Number.parseInt(browser.version(), 10) };
    } catch (error) {
      throw new Error(`${url} gave no result: ${error.message}\n${errors.join("\n")}`);
    }
  } finally {
    await browser.close();
  }
}
